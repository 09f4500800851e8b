"""One of a command's outputs on its way: read without waiting, and copied where it is wanted."""

import fcntl
import os
import select
import struct
import termios
from typing import IO

from progress_workers.processes.output import Output

ROUND_BYTES = 1 << 20
"""Read in one go, at most; and held, where a copy has to wait."""
_CHUNK = 65_536


class Stream:
    """The reading end of a pipe. Nothing more is read while a copy waits to be written, as without us in between."""

    def __init__(self, pipe: IO[bytes], output: Output, copy_to: int | None = None) -> None:
        self.output = output
        self._pipe, self._copy_to = pipe, copy_to
        self._uncopied = memoryview(b"")
        self._left: int | None = None
        self.copy_error: OSError | None = None
        """Why what came could not all be copied, if somebody was there to take it: a full disk, say."""
        os.set_blocking(pipe.fileno(), False)

    @property
    def wants(self) -> tuple[int, int] | None:
        """The descriptor and the event to wait for, as `poll` has them; None when all is done."""
        if self._uncopied and self._copy_to is not None:
            return self._copy_to, select.POLLOUT
        return None if self._pipe.closed else (self._pipe.fileno(), select.POLLIN)

    def go_on(self) -> None:
        """Do what was waited for."""
        if not self._uncopied:
            self._read()
        if self._uncopied:
            self._copy()

    def command_ended(self) -> None:
        """Note how much the command has left behind: what comes after that is of others who hold the pipe."""
        if not self._pipe.closed:
            there = fcntl.ioctl(self._pipe.fileno(), termios.FIONREAD, bytes(4))
            (self._left,) = struct.unpack("i", there)

    @property
    def drained(self) -> bool:
        """Whether all was read that the command itself had written when it ended, and copied."""
        return not self._uncopied and (self._pipe.closed or (self._left is not None and self._left <= 0))

    def close(self) -> None:
        """Read no more."""
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
            written = os.write(self._copy_to, self._uncopied[: select.PIPE_BUF])  # so much never waits, says poll
        except BlockingIOError:
            return
        except OSError as error:
            # Nothing takes it any more. The command hears of that as it would without us: when it writes.
            if not isinstance(error, BrokenPipeError):
                self.copy_error = error
            self._uncopied = memoryview(b"")
            self.close()
            return
        self._uncopied = self._uncopied[written:]


def _takes(descriptor: int) -> bool:
    """Return whether a write won't wait: since it was asked last, another stream may have filled what both go to."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
