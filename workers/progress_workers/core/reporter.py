"""The worker's core, without I/O: what an operation is told goes in, calls of the publish script come out.

Everything is sent in batches. A batch that was taken stays as it is, with its sequence numbers, until it is
acknowledged: sent twice, it is stored once. Meanwhile newer progress replaces older, and logs wait in a bounded
buffer, so a Redis that is away costs no more memory after an hour than after a second.
"""

from collections.abc import Callable, Sequence
from math import inf
from threading import RLock

from progress_broker.errors import BrokerError, Fenced, OperationEnded
from progress_broker.model.entry import Entry, publish_call
from progress_broker.model.operation import Answer
from progress_broker.settings import Settings
from progress_broker.storage.keys import OperationKeys
from progress_broker.storage.scripts import Call
from progress_workers.clock import Clock
from progress_workers.core.backlog import LEVELS, Backlog, Line, level_of
from progress_workers.core.cancellation import StopSign
from progress_workers.core.counter import Pulse
from progress_workers.core.encoding import log_json, room, running
from progress_workers.core.inbox import Inbox
from progress_workers.core.lease import Lease
from progress_workers.core.outbox import Outbox
from progress_workers.core.progress import Progress
from progress_workers.core.progress_encoder import Telling
from progress_workers.core.stage import MAX_NAME_CHARS, Stage
from progress_workers.errors import Stop
from progress_workers.tracing import NO_TRACE, NoTrace
from progress_workers.values import brief, text
from progress_workers.values.complaints import Complaints

INTERVAL_S = 0.1
"""Progress of one operation is sent no more often than this, by default; the first and the last always are."""
BATCH_LINES = 250
"""Log lines in one batch. So many waiting are sent without waiting for the interval."""


class Reporter:
    """One operation as this process reports it.

    User threads tell it things; one thread takes batches and acknowledges them, another sends its beats. `wake` is
    called, from any thread, when there may be something new to take; it must not block.
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
        created_ms: int | None = None,
        worker: str = "",
        announce: bool = False,
        lease_s: float | None = None,
        idle_limit_s: float | None = None,
        interval_s: float = INTERVAL_S,
        clock: Clock | None = None,
        wake: "Callable[[Reporter], None] | None" = None,
        trace: NoTrace = NO_TRACE,
    ) -> None:
        self.operation = operation
        self.trace = trace
        self.keys = keys
        self.attempt = attempt
        self.heard = (0, 0)
        """The position up to which its signals were heard."""
        self.succeeded = False
        """Whether a signal told that another attempt took over."""
        now = (clock := clock or Clock()).monotonic()
        self.complaints = Complaints(operation, lambda said: self.publish(Line(said, "warning", None)))
        self.pulse = Pulse(lambda: wake(self) if wake else None, self.complaints.add)
        self.progress = Progress(self.pulse, clock, total=total, unit=unit)
        self._telling = Telling(operation, self.progress, settings, now)
        self.lease = Lease(lease_s, settings.idle_limit_s if idle_limit_s is None else idle_limit_s, now)
        self.inbox = Inbox()
        self.sign = StopSign(operation, self.pulse, self.inbox)
        self._settings = settings
        self._worker = worker
        self._created_ms = created_ms
        self.interval_s = interval_s
        self._backlog = Backlog()
        self._outbox = Outbox()
        self._end: Entry | None = None
        self._hold_ms: int | None = None
        """How long the lease is to be held for the next attempt, once this one gave up."""
        self._announce = announce
        self._parting = self._finished = self._released = False
        self._taken_at = now - interval_s  # the first progress need not wait
        if total is not None or unit is not None:
            self.pulse.dirty = True  # worth telling before the first item is done

    # What the operation is told, from any thread.

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Keep a line for the log. Without a stage it belongs to the one that runs, if only one does."""
        said, known = text(message), level_of(level)
        named = None if stage is None else text(stage, MAX_NAME_CHARS)
        if known is None:
            levels = ", ".join(sorted(LEVELS))
            self.complaints.add("level", f"log level {brief(level)} is shown as info; the levels are {levels}")
        with self.pulse.lock:
            self.publish(Line(said, known or "info", named or self.progress.running_stage))

    def publish(self, one: Line | Entry) -> None:
        """Keep a line, or an event of the user's own."""
        with self.pulse.lock:
            if self.ended or self.lost is not None:
                return
            self._backlog.append(one)
            waiting = len(self._backlog)
        if waiting in (1, BATCH_LINES):
            self.pulse.wake()

    def stage(self, name: str, weight: float | None = None, total: float | None = None) -> Stage:
        """Return the stage of this name, made at its first mention."""
        return self.progress.stage(name, weight, total, self.log)

    def end(self, outcome: Entry) -> bool:
        """Keep how the operation ended, to be sent after all else; return whether it was the first to say."""
        with self.pulse.lock:
            if self.ended:
                return False
            self._end = outcome
        self._let_go()
        return True

    def retry_in(self, delay_s: float, said: Line) -> None:
        """Keep that this attempt gave up, to be sent after all else, and that the next one comes so much later."""
        with self.pulse.lock:
            if self.ended:
                return
            self.publish(said)
            self._hold_ms = round(1000 * (delay_s + (self.lease.lease_s or 0.0)))
        self._let_go()

    def mark(self) -> int:
        """Return a mark that is reached when all that was told so far is acknowledged."""
        with self.pulse.lock:
            mark = self._outbox.mark()
        self.pulse.wake()
        return mark

    def release(self) -> None:
        """Note that nobody works on it here any more: no beats. The garbage collector calls it, so it takes no lock."""
        self.lease.release()
        self._released = True

    def _let_go(self) -> None:
        self.inbox.close()
        self.trace.end(self._end)
        self.pulse.wake()

    # What became of it.

    @property
    def lost(self) -> BrokerError | None:
        """Why the operation is no longer this process's to report, if so. Nothing is sent from then on."""
        return self.sign.lost

    @property
    def dropped(self) -> bool:
        """Whether what it was told is not stored, and never will be.

        Where another attempt, or somebody else's end, took the operation over, what is late does not count.
        """
        return self.lost is not None and not isinstance(self.lost, Fenced | OperationEnded)

    @property
    def ended(self) -> bool:
        """Whether an end was told, or that another attempt follows."""
        return self._end is not None or self._hold_ms is not None

    @property
    def done(self) -> bool:
        """Whether nothing more will be sent."""
        return self._finished or self.lost is not None

    @property
    def idle(self) -> bool:
        """Whether nothing more will be sent, unless someone who still holds it tells it something."""
        return self._released and self.due_at() == inf

    def reached(self, mark: int) -> bool:
        """Return whether all that was told before the mark is acknowledged, or never will be."""
        return self.done or self._outbox.reached(mark)

    def unsent(self) -> int:
        """Return how many events it keeps that are not acknowledged."""
        with self.pulse.lock:
            batch = self._outbox.batch or []
            end = self._end is not None and not (batch and batch[-1].type == "end")
            return len(batch) + len(self._backlog) + end

    def lose(self, error: BrokerError) -> None:
        """Give the operation up: it is no longer this process's to report."""
        self._silence()
        self.trace.end(self._end)
        self.sign.lose(error)

    # What is sent, by one thread.

    def due_at(self) -> float:
        """Return the monotonic time, in seconds, from which there is a batch to take; infinity for never."""
        if self.done:
            return inf
        if self._outbox.batch or self._outbox.awaited or self._announce or self.ended:
            return -inf
        if len(self._backlog) >= BATCH_LINES:
            return -inf
        if self.pulse.dirty or self._backlog:
            return self._taken_at + self.interval_s
        return inf if self._released else self._telling.due_at()

    def take(self, now: float) -> list[Entry] | None:
        """Return the batch to send as of `now`, None if nothing is due; the same again until it is acknowledged."""
        if self._outbox.batch is None and self.due_at() <= now:
            self._freeze(now)
        return self._outbox.batch

    def call(self, now: float) -> Call | None:
        """Return the call that sends what `take` returns."""
        entries = self.take(now)
        return None if entries is None else self._call(entries, self._hold_ms if self._parting else None)

    def acknowledged(self, answer: Answer) -> None:
        """Note that the batch last taken is stored."""
        batch = self._outbox.batch
        if batch is None:
            return
        last = self._parting or batch[-1].type == "end"
        self._outbox.acknowledged()
        self.lease.heard(self._taken_at)
        self.heed(answer)
        if last:
            self._finished = True
            self._silence()

    # What keeps its lease, by another thread.

    def beat_at(self) -> float:
        """Return the monotonic time, in seconds, from which a beat is due; infinity for never."""
        return inf if self.done or self.ended else self.lease.due_at()

    def beat(self, now: float) -> Call:
        """Return the call that says that the worker is alive, and asks whether the operation is still its own."""
        self.lease.beaten(now)
        return self._call((), 0 if self.lease.lease_s is None else None)

    def reborn(self) -> None:
        """Start anew in a forked child, as another producer; what was waiting is the parent's to send, as are beats."""
        self.pulse.lock = RLock()  # a thread that is not here may have held it
        self._outbox, self._announce = Outbox(), False
        self._backlog.clear()
        self.lease.release()
        self.inbox.reborn()
        self._telling.stop()
        self.pulse.dirty = False
        self._finished = self._finished or self.ended
        if self.done:
            self._silence()

    def _call(self, entries: Sequence[Entry], silent_ms: int | None) -> Call:
        return publish_call(
            self.operation,
            self.keys,
            entries,
            attempt=self.attempt,
            created_ms=self._created_ms,
            worker=self._worker if entries else "",
            silent_ms=silent_ms,
            traceparent=self.trace.traceparent if entries else "",
        )

    def heed(self, answer: Answer) -> None:
        """Note what a beat, or a batch, was answered."""
        if answer.cancel is not None:
            self.sign.ask(Stop(answer.cancel.reason, answer.cancel.by))

    def _silence(self) -> None:
        self.pulse.dirty = True  # and never cleared again: counting goes on without waking anyone

    def _freeze(self, now: float) -> None:
        fading = now >= self._telling.due_at()
        with self.pulse.lock:
            marks, announce = self._outbox.marks, self._announce
            changed, self.pulse.dirty = self.pulse.dirty, False
            waited = self._backlog.take(BATCH_LINES)
            rest = len(self._backlog) > 0
            end = None if rest else self._end
            self._parting = self._hold_ms is not None and not rest
            progress = self._telling.describe(now) if changed or fading else None
        entries, most = [running(self._worker)] if announce else [], room(self._settings)
        entries += (Entry("log", log_json(one, most)) if isinstance(one, Line) else one for one in waited)
        if progress is not None:
            entries += self._telling.entries(progress, now, changed=changed)
        if end is not None:
            entries.append(end)
        self._announce = False
        self._outbox.put(entries, None if rest else marks)
        if entries:
            self._taken_at = now
