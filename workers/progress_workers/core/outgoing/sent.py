"""What Redis acknowledged a moment ago. A failover may lose it, and then it is sent again."""

import os
from collections import deque
from collections.abc import Sequence
from threading import RLock
from typing import NamedTuple

from progress_broker.model.entry import NewEvent
from progress_workers.core.encoding import log_json
from progress_workers.core.outgoing.backlog import Line
from progress_workers.values import MAX_CHARS

KEPT_S = 30.0
"""How long acknowledged events are kept. What a failover or a killed Redis loses is seconds old."""
MAX_BYTES = 1 << 20
"""How much is kept of one operation. If more is acknowledged, the oldest goes."""
MAX_PROCESS_BYTES = 32 << 20
"""How much is kept of all operations of a process. If more is acknowledged, the oldest of all goes."""
_FEW = 8  # events that are not worth to be joined
_BATCH_BYTES, _ROW_BYTES = 250, 180
"""About what a batch takes besides its data, and each event that is not joined with others."""
_SAME_GAPS = 4
"""How often in a row the same events are sent again: a server that has a lower limit may leave some out."""
_MAX_PIECE_EVENTS = 250
_MAX_PIECE_BYTES = 256 << 10


class Refill(NamedTuple):
    """What Redis has lost of a producer's events."""

    batches: list[list[NewEvent]]
    """What to send again, in order. If some are gone, it begins with a line that says so."""
    gone: int
    """How many can't be sent again, as they are not kept any more."""


def pieces(events: Sequence[NewEvent]) -> list[list[NewEvent]]:
    """Divide events into batches of some size: a publish is one script call, and Redis runs nothing else during it."""
    batches: list[list[NewEvent]] = []
    size = 0
    for event in events:
        size += len(event.data)
        if not batches or len(batches[-1]) == _MAX_PIECE_EVENTS or size > _MAX_PIECE_BYTES:
            batches.append([])
            size = len(event.data)
        batches[-1].append(event)
    return batches


class _Batch:
    """A batch in few objects: as many events as are kept would slow down all of a process' Python."""

    __slots__ = ("_lines", "_rows", "at", "last", "live", "size", "whose")

    def __init__(self, whose: "Sent", events: Sequence[NewEvent], at: float) -> None:
        self.whose, self.at, self.live, self.last = whose, at, True, events[-1].seq or 0
        self._lines = _lines(events) if len(events) > _FEW else b""
        if self._lines:
            self._rows = None
            self.size = len(self._lines) + _BATCH_BYTES
        else:
            self._rows = [(one.type, one.data, one.status, one.seq, one.count) for one in events]
            self.size = sum([len(one.data) for one in events]) + _BATCH_BYTES + _ROW_BYTES * len(events)

    def events(self, producer: str) -> list[NewEvent]:
        """Return the events again."""
        if self._rows is not None:
            rows = self._rows
            return [NewEvent(type, data, status, producer, seq, count) for type, data, status, seq, count in rows]
        datas = self._lines.split(b"\n")
        return [NewEvent("log", data, "", producer, seq) for seq, data in enumerate(datas, self.last - len(datas) + 1)]

    def release(self) -> None:
        """Let go of the events. It stays among the others until they are as old."""
        self._lines, self._rows, self.size, self.live = b"", None, 0, False


def _lines(events: Sequence[NewEvent]) -> bytes:
    """Return the data of events that are lines of the log without a hole between them; otherwise nothing."""
    consecutive = (events[-1].seq or 0) - (events[0].seq or 0) == len(events) - 1
    if not consecutive or {event.type for event in events} != {"log"}:
        return b""
    lines = b"\n".join([event.data for event in events])
    return lines if lines.count(b"\n") == len(events) - 1 else b""


class KeptBatches:
    """The batches that all operations of a process keep, oldest first. It is thread-safe."""

    def __init__(self, max_bytes: int = MAX_PROCESS_BYTES) -> None:
        self._max_bytes = max_bytes
        self.after_fork()

    def after_fork(self) -> None:
        """Restart in a forked child, which sends nothing of its parent again."""
        self.lock = RLock()  # the garbage collector may end another operation at any time
        self._batches: deque[_Batch] = deque()
        self.size = 0

    def add(self, batch: _Batch) -> None:
        """Keep a batch, and let go of what is too old or too much. The caller holds the lock."""
        self._batches.append(batch)
        self.size += batch.size
        self.drop_old(batch.at)
        while self.size > self._max_bytes:
            self._drop_first()

    def drop_old(self, now: float) -> None:
        """Let go of what is too old. The caller holds the lock."""
        while self._batches and (not self._batches[0].live or self._batches[0].at < now - KEPT_S):
            self._drop_first()

    def forget(self, batch: _Batch) -> None:
        """Release a batch that its operation has dropped. The caller holds the lock."""
        self.size -= batch.size
        batch.release()

    def _drop_first(self) -> None:
        first = self._batches.popleft()
        if first.live:
            first.whose.drop_first()


OF_PROCESS = KeptBatches()
os.register_at_fork(after_in_child=OF_PROCESS.after_fork)


class Sent:
    """The newest acknowledged events of one producer, with nothing missing after `complete_after`."""

    def __init__(self, kept: KeptBatches = OF_PROCESS) -> None:
        self._kept = kept
        self._batches: deque[_Batch] = deque()
        self._size = 0
        self.complete_after = 0
        """The seq up to which events are not kept, or not any more."""
        self.spooled = 0
        """The seq up to which events were written to a spool since the last batch, if any were."""
        self._gap_after, self._gaps = -1, 0

    def keep(self, events: Sequence[NewEvent], now: float) -> None:
        """Keep a batch that was acknowledged."""
        with self._kept.lock:
            if self.spooled:  # between what is kept and this batch, others came to be stored
                self.clear()
                self.complete_after, self.spooled = self.spooled, 0
            self._keep(events, now)

    def drop_old(self, now: float) -> None:
        """Let go of what is too old, also of other operations."""
        with self._kept.lock:
            self._kept.drop_old(now)

    def drop_first(self) -> None:
        """Let go of the oldest batch. The caller holds the lock."""
        self.complete_after = self._batches[0].last
        self._forget(self._batches.popleft())

    def take_lost(self, last: int, producer: str) -> Refill:
        """Remove and return what Redis has lost, if the newest that it has is `last`.

        Nothing of it may be left out: what one of several publishers counts is what came since its event before.
        """
        self._gaps = self._gaps + 1 if last == self._gap_after else 1
        self._gap_after = last
        lost, gone = self._take_after(last, producer)
        if self._gaps > _SAME_GAPS and lost:
            lost, gone = [], (lost[-1].seq or 0) - last
        if gone:
            said = f"{gone} {'event was' if gone == 1 else 'events were'} lost when Redis failed over"
            line = NewEvent("log", log_json(Line(said, "warning", None, gone), MAX_CHARS))
            lost.insert(0, line.numbered(producer, last + gone))
        return Refill(pieces(lost), gone)

    def _take_after(self, seq: int, producer: str) -> tuple[list[NewEvent], int]:
        taken: list[NewEvent] = []
        with self._kept.lock:
            gone = max(0, self.complete_after - seq)
            self.complete_after -= gone
            while self._batches and self._batches[-1].last > seq:
                batch = self._batches.pop()
                events, at = batch.events(producer), batch.at
                stored = sum([(event.seq or 0) <= seq for event in events])
                taken[:0], head = events[stored:], events[:stored]
                self._forget(batch)
                if head:
                    self._keep(head, at)
        return taken, gone

    def clear(self) -> None:
        """Let go of everything."""
        with self._kept.lock:
            while self._batches:
                self.drop_first()

    def _keep(self, events: Sequence[NewEvent], at: float) -> None:
        batch = _Batch(self, events, at)
        self._batches.append(batch)
        self._size += batch.size
        self._kept.add(batch)
        while self._size > MAX_BYTES:
            self.drop_first()

    def _forget(self, batch: _Batch) -> None:
        self._size -= batch.size
        self._kept.forget(batch)
