"""One output of a command: reads it without blocking, and optionally copies it."""

import fcntl
import os
import select
import struct
import termios
from typing import IO

from progress_workers.processes.output import Output

ROUND_BYTES = 1 << 20
"""How much is read at once at most, and how much is buffered while a copy has to wait."""
_CHUNK = 65_536


class Stream:
    """The read end of a pipe. While a copy waits to be written, nothing more is read, so the command waits as usual."""

    def __init__(self, pipe: IO[bytes], output: Output, copy_to: int | None = None) -> None:
        self.output = output
        self._pipe, self._copy_to = pipe, copy_to
        self._uncopied = memoryview(b"")
        self._left: int | None = None
        self.copy_error: OSError | None = None
        """Why the copy is incomplete, for example a full disk; None if its reader closed it."""
        os.set_blocking(pipe.fileno(), False)

    @property
    def wants(self) -> tuple[int, int] | None:
        """The descriptor and the event to wait for, as arguments of `poll`; None when everything is done."""
        if self._uncopied and self._copy_to is not None:
            return self._copy_to, select.POLLOUT
        return None if self._pipe.closed else (self._pipe.fileno(), select.POLLIN)

    def go_on(self) -> None:
        """Read or copy, now that the awaited event has happened."""
        if not self._uncopied:
            self._read()
        if self._uncopied:
            self._copy()

    def command_ended(self) -> None:
        """Record how much output the command left in the pipe; later output comes from other processes."""
        if not self._pipe.closed:
            there = fcntl.ioctl(self._pipe.fileno(), termios.FIONREAD, bytes(4))
            (self._left,) = struct.unpack("i", there)

    @property
    def drained(self) -> bool:
        """Whether all output that the command itself had written at its end was read and copied."""
        return not self._uncopied and (self._pipe.closed or (self._left is not None and self._left <= 0))

    def close(self) -> None:
        """Stop reading."""
        if not self._pipe.closed:
            self._pipe.close()
            self.output.feed(b"", final=True)

    def _read(self) -> None:
        chunks: list[bytes] = []
        size, ended = 0, False
        while size < ROUND_BYTES and not ended:
            try:
                chunks.append(os.read(self._pipe.fileno(), _CHUNK))
            except BlockingIOError:
                break
            size += len(chunks[-1])
            ended = not chunks[-1]
        data = b"".join(chunks)
        if self._copy_to is not None:
            self._uncopied = memoryview(data)
        if self._left is not None:
            self._left -= size
        self.output.feed(data)
        if ended:
            self.close()

    def _copy(self) -> None:
        if self._copy_to is None or not _takes(self._copy_to):
            return
        try:
            written = os.write(
                self._copy_to, self._uncopied[: select.PIPE_BUF]
            )  # after poll, a write of this size does not block
        except BlockingIOError:
            return
        except OSError as error:
            # Nobody reads the copy any more. The command notices this at its next write, as it would without us.
            if not isinstance(error, BrokenPipeError):
                self.copy_error = error
            self._uncopied = memoryview(b"")
            self.close()
            return
        self._uncopied = self._uncopied[written:]


def _takes(descriptor: int) -> bool:
    """Return whether a write would not block: since the last poll, another stream may have filled the shared target."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
