"""Events that wait to be replayed, in a temporary file if they are many: those of several operations, in one order.

The events of an operation lie one behind the other, as they came. So the order of all is a merge of these runs, and
only their beginnings are in memory.
"""

import tempfile
from collections.abc import Iterator, Sequence
from heapq import merge
from struct import Struct
from typing import NamedTuple, Self

from progress_broker.errors import TooLarge
from progress_broker.model.event import Event
from progress_broker.model.position import order
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.transfer.format import ExportedEvent

IN_MEMORY_BYTES = 16 * 1024 * 1024
"""With more than this, they go to a file."""
_HEAD = Struct(">QIIIII")  # n, and how long the five texts are


class Recorded(NamedTuple):
    """An event of an operation."""

    operation: str
    event: ExportedEvent

    @property
    def frame(self) -> Frame:
        """The event as clients get it."""
        n, position, kind, data, _, _ = self.event
        return make_frame(Event(self.operation.encode(), position, n, kind, data))


class _Run(NamedTuple):
    """The events of an operation."""

    operation: str
    begins: int
    """Where in the file."""
    ends: int


class Spool:
    """Events of operations. Close it when done: its file is removed then."""

    def __init__(self, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory_bytes)  # noqa: SIM115 - closed by `close`
        self._runs: list[_Run] = []
        self._count = self._size = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Recorded]:
        """Yield all events, in the order of their positions. Those of one operation stay in their own order."""
        if len(self._runs) == 1:
            return self._read(self._runs[0])
        return merge(*map(self._read, self._runs), key=lambda recorded: order(recorded.event.position))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the events."""
        self._file.close()

    def append(self, operation: str, events: Sequence[ExportedEvent]) -> None:
        """Add events of an operation, behind those that it has. Another operation follows when it has all of its own.

        Raises `TooLarge` if the folder for temporary files has no room for them.
        """
        records = b"".join([part for event in events for part in _record(event)])
        try:
            self._file.seek(self._size)
            self._file.write(records)
        except OSError as error:
            raise TooLarge(
                f"the events do not fit into {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to a folder with"
                " more room, or replay fewer operations"
            ) from None
        begins, self._size = self._size, self._size + len(records)
        if self._runs and self._runs[-1].operation == operation:
            begins = self._runs.pop().begins
        self._runs.append(_Run(operation, begins, self._size))
        self._count += len(events)

    def _read(self, run: _Run) -> Iterator[Recorded]:
        at = run.begins
        while at < run.ends:
            self._file.seek(at)  # each time: other runs are read in between
            n, *lengths = _HEAD.unpack(self._file.read(_HEAD.size))
            texts = self._file.read(sum(lengths))
            at += _HEAD.size + len(texts)
            cuts = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
            position, kind, data, producer, seq = (texts[cuts[i] : cuts[i + 1]] for i in range(len(lengths)))
            yield Recorded(run.operation, ExportedEvent(n, position, kind, data, producer, seq))


def _record(event: ExportedEvent) -> tuple[bytes, ...]:
    n, *texts = event
    return (_HEAD.pack(n, *map(len, texts)), *texts)
