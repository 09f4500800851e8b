"""The worker's core, without I/O: what an operation is told goes in, calls of the publish script come out.

Everything is sent in batches. A batch that was taken stays as it is, with its sequence numbers, until it is
acknowledged: sent twice, it is stored once. Meanwhile newer progress replaces older, and logs wait in a bounded
buffer, so a Redis that is away costs no more memory after an hour than after a second.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from secrets import token_hex
from threading import RLock
from typing import Any

from broker.errors import BrokerError
from broker.keys import OperationKeys
from broker.models import Answer
from broker.publishing import Entry, publish_call
from broker.scripts import Call
from broker.settings import Settings
from workers.clock import Clock
from workers.errors import Cancelled, Stop
from workers.gauge import Pulse
from workers.logs import Line, LogBuffer
from workers.payloads import MAX_MESSAGE_CHARS, RUNNING, log_json, progress_json, room
from workers.progress import Progress
from workers.stages import Stage

INTERVAL_S = 0.1
"""Progress of one operation is sent no more often than this, by default; the first and the last always are."""
BATCH_LINES = 100
"""Log lines in one batch. So many waiting are sent without waiting for the interval."""
_BEATS_PER_LEASE = 3


class Reporter:
    """One operation as this process reports it.

    User threads tell it things; one thread takes batches and acknowledges them. `wake` is called, from any thread
    and never with the lock held by this one, when there may be something new to take; it must not block.
    """

    def __init__(
        self,
        operation: str,
        keys: OperationKeys,
        settings: Settings,
        *,
        total: float | None = None,
        unit: str | None = None,
        attempt: int = 1,
        worker: str = "",
        announce: bool = False,
        beat_lease_s: float | None = None,
        interval_s: float = INTERVAL_S,
        clock: Clock | None = None,
        wake: "Callable[[Reporter], None] | None" = None,
    ) -> None:
        self.operation = operation
        self.keys = keys
        self.attempt = attempt
        self.stop: Stop | None = None
        self.lost: BrokerError | None = None
        """Why the operation is no longer this process's to report, if so. Nothing is sent from then on."""
        clock = clock or Clock()
        self.pulse = Pulse(lambda: wake(self) if wake else None)
        self.progress = Progress(self.pulse, clock, total=total, unit=unit)
        self._settings = settings
        self._worker = worker
        self._interval_s = interval_s
        self._beat_s = inf if beat_lease_s is None else beat_lease_s / _BEATS_PER_LEASE
        self._producer = token_hex(8)
        self._seq = 0
        self._logs = LogBuffer()
        self._end: Entry | None = None
        self._announce = announce
        self._finished = self._released = False
        self._complained = False
        self._taken_at = clock.monotonic() - interval_s  # the first progress need not wait
        self._frozen: list[Entry] | None = None
        self._marks = self._frozen_mark = self._reached = 0
        if total is not None or unit is not None:
            self.pulse.dirty = True  # worth telling before the first item is done

    # What the operation is told, from any thread.

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Keep a line for the log. Without a stage it belongs to the one that runs, if only one does."""
        with self.pulse.lock:
            if self._end is not None or self.lost is not None:
                return
            self._logs.append(Line(str(message)[: MAX_MESSAGE_CHARS + 1], level, stage or self.progress.running_stage))
            waiting = len(self._logs)
        if waiting in (1, BATCH_LINES):
            self.pulse.wake()

    def stage(self, name: str, weight: float | None = None, total: float | None = None) -> Stage:
        """Return the stage of this name, made at its first mention."""
        return self.progress.stage(name, weight, total, self.log)

    def end(self, outcome: Entry) -> bool:
        """Keep how the operation ended, to be sent after all else; return whether it was the first to say."""
        with self.pulse.lock:
            if self._end is not None:
                return False
            self._end = outcome
        self.pulse.wake()
        return True

    def mark(self) -> int:
        """Return a mark that is reached when all that was told so far is acknowledged."""
        with self.pulse.lock:
            self._marks += 1
            mark = self._marks
        self.pulse.wake()
        return mark

    def release(self) -> None:
        """Note that nobody works on it here any more: no beats. The garbage collector calls it, so it takes no lock."""
        self._beat_s = inf
        self._released = True

    # What became of it.

    def reached(self, mark: int) -> bool:
        """Return whether all that was told before the mark is acknowledged, or never will be."""
        return self.done or self._reached >= mark

    @property
    def ended(self) -> bool:
        """Whether an end was told."""
        return self._end is not None

    @property
    def done(self) -> bool:
        """Whether nothing more will be sent."""
        return self._finished or self.lost is not None

    @property
    def idle(self) -> bool:
        """Whether nothing more will be sent, unless someone who still holds it tells it something."""
        return self._released and self.due_at() == inf

    def stopped(self) -> Exception | None:
        """Return what tells the work to stop, if anything does: it was lost to us, or someone asked."""
        if self.lost is not None:
            return self.lost
        return None if self.stop is None else Cancelled(self.operation, *self.stop)

    def cancel(self, stop: Stop) -> None:
        """Note that someone asked the work to stop. A publish's answer says so without a reason, a signal with one."""
        if self.stop is None or self.stop == Stop():
            self.stop = stop

    def lose(self, error: BrokerError) -> None:
        """Give the operation up: it is no longer this process's to report."""
        self.lost = error
        self._silence()

    # What is sent, by one thread.

    def due_at(self) -> float:
        """Return the monotonic time, in seconds, from which there is a batch to take; infinity for never."""
        if self.done:
            return inf
        if self._frozen or self._announce or self._end or self._marks > self._reached:
            return -inf
        if len(self._logs) >= BATCH_LINES:
            return -inf
        if self.pulse.dirty or self._logs:
            return self._taken_at + self._interval_s
        return self._taken_at + self._beat_s

    def take(self, now: float) -> list[Entry] | None:
        """Return the batch to send as of `now`, None if nothing is due; the same again until it is acknowledged."""
        if self._frozen is None and self.due_at() <= now:
            self._freeze(now)
        return self._frozen

    def call(self, now: float) -> Call | None:
        """Return the call that sends what `take` returns."""
        entries = self.take(now)
        if entries is None:
            return None
        return publish_call(self.operation, self.keys, entries, attempt=self.attempt, worker=self._worker)

    def acknowledged(self, answer: Answer) -> None:
        """Note that the batch last taken is stored."""
        if self._frozen is None:
            return
        ended = self._frozen[-1].type == "end"
        self._frozen = None
        self._reached = self._frozen_mark
        if answer.cancel_requested:
            self.cancel(Stop())
        if ended:
            self._finished = True
            self._silence()

    def reborn(self) -> None:
        """Start anew in a forked child, as another producer; what was waiting is the parent's to send, as are beats."""
        self.pulse.lock = RLock()  # a thread that is not here may have held it
        self._producer, self._seq = token_hex(8), 0
        self._frozen, self._announce = None, False
        self._logs.clear()
        self._beat_s = inf
        self._marks = self._frozen_mark = self._reached = 0
        self.pulse.dirty = False
        if self._end is not None:
            self._finished = True
        if self.done:
            self._silence()

    def _silence(self) -> None:
        self.pulse.dirty = True  # and never cleared again: counting goes on without waking anyone

    def _freeze(self, now: float) -> None:
        beat = now >= self._taken_at + self._beat_s
        with self.pulse.lock:
            mark, announce = self._marks, self._announce
            changed, self.pulse.dirty = self.pulse.dirty, False
            lines = self._logs.take(BATCH_LINES)
            rest = len(self._logs) > 0
            end = None if rest else self._end
            progress = self.progress.describe(now) if changed or beat else None
        entries = [RUNNING] if announce else []
        most = room(self._settings)
        entries += (Entry("log", log_json(line, most)) for line in lines)
        if progress is not None:
            entries += self._encode(progress)
        if end is not None:
            entries.append(end)
        self._announce = False
        if not rest:
            self._frozen_mark = mark
        if not entries:
            self._reached = self._frozen_mark
            return
        first, self._seq = self._seq + 1, self._seq + len(entries)
        self._frozen = [
            replace(entry, producer=self._producer, seq=seq) for seq, entry in enumerate(entries, start=first)
        ]
        self._taken_at = now

    def _encode(self, progress: dict[str, Any]) -> list[Entry]:
        """Return the progress and, the first time something does not fit into it, a line that says so."""
        data, left_out = progress_json(progress, self._settings.max_progress_bytes)
        entries = [Entry("progress", data)]
        if left_out and not self._complained:
            self._complained = True
            said = f"left out of the progress, as too large or not JSON: {', '.join(map(str, left_out))}"
            entries.insert(0, Entry("log", log_json(Line(said, "warning", None), room(self._settings))))
        return entries
