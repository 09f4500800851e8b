"""Sends one batch at a time to Redis. A batch stays unchanged, with the same numbers, until it is acknowledged.

If Redis loses what it acknowledged, that is sent again first, under the same numbers.
"""

from collections import deque
from collections.abc import Sequence
from math import inf
from secrets import token_hex

from progress_broker.model.entry import NewEvent
from progress_broker.settings import Settings
from progress_workers.core.encoding import log_json, room, running
from progress_workers.core.metadata import Metadata
from progress_workers.core.outgoing.backlog import Backlog, Line
from progress_workers.core.outgoing.sent import Refill, Sent
from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.core.progress_encoder import ProgressEncoder

BATCH_LINES = 250
"""The most log lines in one batch. When this many wait, they are sent without waiting for the interval."""


class Outbox:
    """Everything that waits to be sent, and the batch that is being sent. Times are monotonic, in seconds.

    Any thread that holds `dirty_flag.lock` may add lines, the end and marks. A single thread takes batches and
    acknowledges them.
    """

    def __init__(
        self,
        dirty_flag: DirtyFlag,
        encoder: ProgressEncoder,
        settings: Settings,
        worker: str,
        interval_s: float,
        taken_at: float,
    ) -> None:
        self.batch: list[NewEvent] | None = None
        self.backlog = Backlog()
        self.metadata = Metadata(dirty_flag)
        self.end: NewEvent | None = None
        """The end of the operation, once it is reported."""
        self.hold_ms: int | None = None
        """How long the lease is extended for the next attempt, after this attempt failed."""
        self.publish_running = False
        """Whether to report first that the operation is running."""
        self.interval_s = interval_s
        self.taken_at = taken_at
        """When the last batch was taken."""
        self._dirty_flag = dirty_flag
        self._encoder = encoder
        self._settings = settings
        self._worker = worker
        self._parting = False  # the batch is the last one of an attempt that failed
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.batch = None
        self._later: deque[list[NewEvent]] = deque()  # after a loss: the batches that follow this one
        self.sent = Sent()
        self.stored = 0
        """The seq up to which events are known to be stored."""
        self.producer, self._seq = token_hex(8), 0
        self._marks = self._batch_mark = self._reached = 0

    @property
    def ended(self) -> bool:
        """Whether an end was reported, or a retry."""
        return self.end is not None or self.hold_ms is not None

    @property
    def lease_ms(self) -> int | None:
        """How long the worker may be silent after the batch; None: as long as its lease."""
        return self.hold_ms if self._parting and not self._later else None

    @property
    def newest(self) -> int:
        """How many events were made, including one for what waits."""
        return self._seq + (self._dirty_flag.dirty or len(self.backlog) > 0 or self.metadata.waits)

    def mark(self) -> int:
        """Return a mark that is reached when everything before it is acknowledged."""
        self._marks += 1
        return self._marks

    def reached(self, mark: int) -> bool:
        """Return whether everything before a mark is acknowledged."""
        return self._reached >= mark

    def __len__(self) -> int:
        """Return how many events are not acknowledged yet."""
        batch = self.batch or []
        end = self.end is not None and not (batch and batch[-1].type == "end")
        return len(batch) + sum(map(len, self._later)) + len(self.backlog) + self.metadata.waits + end

    def due_at(self, *, counting: bool) -> float:
        """Return when there is a batch to take; infinity for never.

        With `counting` the work is still in progress: then unchanged progress is sent again while its rate falls.
        """
        if self.batch or self._marks > self._reached or self.publish_running or self.ended:
            return -inf
        if len(self.backlog) >= BATCH_LINES:
            return -inf
        if self._dirty_flag.dirty or self.backlog or self.metadata.waits:
            return self.taken_at + self.interval_s
        return self._encoder.due_at() if counting else inf

    def freeze(self, now: float) -> None:
        """Create the next batch, from everything that waits to be sent."""
        fading = now >= self._encoder.due_at()
        with self._dirty_flag.lock:
            marks, publish_running = self._marks, self.publish_running
            changed, self._dirty_flag.dirty = self._dirty_flag.dirty, False
            waited = self.backlog.take(BATCH_LINES)
            rest = len(self.backlog) > 0
            end = None if rest else self.end
            self._parting = self.hold_ms is not None and not rest
            metadata = self.metadata.take()
            progress = self._encoder.describe(now) if changed or fading else None
        entries, most = [running(self._worker)] if publish_running else [], room(self._settings.max_event_bytes)
        entries += (NewEvent("log", log_json(one, most)) if isinstance(one, Line) else one for one in waited)
        if metadata is not None:
            entries.append(metadata)
        if progress is not None:
            entries += self._encoder.entries(progress, now, changed=changed)
        if end is not None:
            entries.append(end)
        self.publish_running = False
        self._put(entries, None if rest else marks)
        if entries:
            self.taken_at = now

    def _put(self, entries: Sequence[NewEvent], marks: int | None) -> None:
        """Make entries the batch. When it is acknowledged, `marks` are reached; None leaves the marks for later."""
        if marks is not None:
            self._batch_mark = marks
        if not entries:
            self._reached = self._batch_mark
            return
        first, self._seq = self._seq + 1, self._seq + len(entries)
        numbered = enumerate(entries, start=first)
        self.batch = [entry.numbered(self.producer, seq) for seq, entry in numbered]

    def leave_out(self, type: str) -> bool:
        """Take the events of a type out of the batch, which was rejected for them. Return whether there were any."""
        before = self.batch or []
        self.batch = [entry for entry in before if entry.type != type]
        if not self.batch:
            self._batch_done()
        return len(before) > len(self.batch or ())

    def acknowledged(self, now: float) -> bool:
        """Note that the batch is stored. Return whether it was the last one."""
        batch = self.batch or []
        self.stored = batch[-1].seq or 0
        self.sent.keep(batch, now)
        return self._batch_done()

    @property
    def at_end(self) -> bool:
        """Whether the batch is the last one, with the end of the operation."""
        batch = self.batch or []
        return bool(batch) and not self._later and batch[-1].type == "end"

    def stored_once(self) -> None:
        """Note that the batch is stored, but goes on to be sent."""
        self._reached = self._batch_mark

    def spooled(self) -> bool:
        """Note that the batch is written to a spool, from where it is sent. Return whether it was the last one."""
        self.sent.spooled = (self.batch or [])[-1].seq or 0
        return self._batch_done()

    def _batch_done(self) -> bool:
        batch = self.batch or []
        last = bool(batch) and not self._later and (self._parting or batch[-1].type == "end")
        self.batch = self._later.popleft() if self._later else None
        if self.batch is None:
            self._reached = self._batch_mark
        return last

    def refill(self, last: int) -> Refill:
        """Send again first what Redis has lost of what it had stored: all after the seq `last`."""
        refill = self.take_lost(last)
        following = [self.batch] if self.batch else []
        self._later.extendleft(reversed([*refill.batches, *following]))
        self.batch = self._later.popleft() if self._later else None
        return refill

    def take_lost(self, last: int) -> Refill:
        """Return what Redis has lost, if it has stored only what is up to the seq `last`."""
        self.stored = min(self.stored, last)
        return self.sent.take_lost(last, self.producer)

    def after_fork(self) -> None:
        """Restart in a forked child as a new producer: the parent sends what was waiting."""
        self._begin_anew()
        self.publish_running = False
        self.backlog.clear()
        self.metadata.after_fork()
        self._encoder.stop()
