"""What goes to Redis: one batch at a time, which stays as it is, under the same numbers, until it is acknowledged."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from secrets import token_hex

from progress_broker.model.entry import Entry
from progress_broker.settings import Settings
from progress_workers.core.backlog import Backlog, Line
from progress_workers.core.encoding import log_json, room, running
from progress_workers.core.progress.dirty import Pulse
from progress_workers.core.progress_encoder import Telling

BATCH_LINES = 250
"""Log lines in one batch. So many waiting are sent without waiting for the interval."""


class Outbox:
    """What waits to be sent, and the batch that is on its way. Times are monotonic, in seconds.

    Lines, the end and marks may come from any thread that holds `pulse.lock`. One thread takes and acknowledges.
    """

    def __init__(
        self, pulse: Pulse, telling: Telling, settings: Settings, worker: str, interval_s: float, taken_at: float
    ) -> None:
        self.batch: list[Entry] | None = None
        self.backlog = Backlog()
        self.end: Entry | None = None
        """How the operation ended."""
        self.hold_ms: int | None = None
        """How long the lease is to be held for the next attempt, once this one gave up."""
        self.announce = False
        """Whether that it runs is to be said first."""
        self.interval_s = interval_s
        self.taken_at = taken_at
        """When a batch was last taken."""
        self._pulse = pulse
        self._telling = telling
        self._settings = settings
        self._worker = worker
        self._parting = False  # the batch is the last of an attempt that gave up
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.batch = None
        self._producer, self._seq = token_hex(8), 0
        self._marks = self._batch_mark = self._reached = 0

    @property
    def ended(self) -> bool:
        """Whether an end was told, or that another attempt follows."""
        return self.end is not None or self.hold_ms is not None

    @property
    def lease_ms(self) -> int | None:
        """How long the worker may be silent after the batch; None for as long as its lease says."""
        return self.hold_ms if self._parting else None

    def mark(self) -> int:
        """Return a mark that is reached when all that came before it is acknowledged."""
        self._marks += 1
        return self._marks

    def reached(self, mark: int) -> bool:
        """Return whether all before a mark is acknowledged."""
        return self._reached >= mark

    def __len__(self) -> int:
        """Return how many events are not acknowledged."""
        batch = self.batch or []
        end = self.end is not None and not (batch and batch[-1].type == "end")
        return len(batch) + len(self.backlog) + end

    def due_at(self, *, counting: bool) -> float:
        """Return from when there is a batch to take; infinity for never. While `counting`, a falling rate counts."""
        if self.batch or self._marks > self._reached or self.announce or self.ended:
            return -inf
        if len(self.backlog) >= BATCH_LINES:
            return -inf
        if self._pulse.dirty or self.backlog:
            return self.taken_at + self.interval_s
        return self._telling.due_at() if counting else inf

    def freeze(self, now: float) -> None:
        """Make a batch of what waits, as of now."""
        fading = now >= self._telling.due_at()
        with self._pulse.lock:
            marks, announce = self._marks, self.announce
            changed, self._pulse.dirty = self._pulse.dirty, False
            waited = self.backlog.take(BATCH_LINES)
            rest = len(self.backlog) > 0
            end = None if rest else self.end
            self._parting = self.hold_ms is not None and not rest
            progress = self._telling.describe(now) if changed or fading else None
        entries, most = [running(self._worker)] if announce else [], room(self._settings)
        entries += (Entry("log", log_json(one, most)) if isinstance(one, Line) else one for one in waited)
        if progress is not None:
            entries += self._telling.entries(progress, now, changed=changed)
        if end is not None:
            entries.append(end)
        self.announce = False
        self._put(entries, None if rest else marks)
        if entries:
            self.taken_at = now

    def _put(self, entries: Sequence[Entry], marks: int | None) -> None:
        """Make entries the batch; with it, once acknowledged, so many marks are reached. None leaves them for later."""
        if marks is not None:
            self._batch_mark = marks
        if not entries:
            self._reached = self._batch_mark
            return
        first, self._seq = self._seq + 1, self._seq + len(entries)
        numbered = enumerate(entries, start=first)
        self.batch = [replace(entry, producer=self._producer, seq=seq) for seq, entry in numbered]

    def acknowledged(self) -> bool:
        """Note that the batch is stored; return whether it was the last."""
        last = self._parting or (self.batch or [])[-1].type == "end"
        self.batch = None
        self._reached = self._batch_mark
        return last

    def reborn(self) -> None:
        """Start anew in a forked child, as another producer: what was waiting is the parent's to send."""
        self._begin_anew()
        self.announce = False
        self.backlog.clear()
        self._telling.stop()
