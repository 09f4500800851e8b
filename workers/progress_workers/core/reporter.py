"""The worker's core, without I/O: what an operation is told goes in, calls of the publish script come out.

Everything is sent in batches. A batch that was taken stays as it is, with its sequence numbers, until it is
acknowledged: sent twice, it is stored once. Meanwhile newer progress replaces older, and logs wait in a bounded
buffer, so a Redis that is away costs no more memory after an hour than after a second.
"""

from collections.abc import Callable, Sequence
from math import inf
from threading import RLock

from progress_broker.errors import BrokerError, Fenced, OperationEnded
from progress_broker.model.entry import Entry, build_shapes
from progress_broker.model.operation import Answer
from progress_broker.operations.commands import publish_call
from progress_broker.settings import Settings
from progress_broker.storage.keys import OperationKeys
from progress_broker.storage.scripts import Call
from progress_workers.core.backlog import LEVELS, Line, level_of
from progress_workers.core.cancellation import StopSign
from progress_workers.core.inbox import Inbox
from progress_workers.core.lease import Lease
from progress_workers.core.outbox import BATCH_LINES, Outbox
from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.dirty import Pulse
from progress_workers.core.progress.progress import Progress
from progress_workers.core.progress.stage import MAX_NAME_CHARS, Stage
from progress_workers.core.progress_encoder import Telling
from progress_workers.errors import Stop
from progress_workers.tracing import NO_TRACE, NoTrace
from progress_workers.values import brief, text
from progress_workers.values.complaints import Complaints

INTERVAL_S = 0.1
"""Progress of one operation is sent no more often than this, by default; the first and the last always are."""


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
        build_shapes()  # as a block may be left at the very end of its process
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
        telling = Telling(operation, self.progress, settings, now)
        # The first progress need not wait.
        self.outbox = Outbox(self.pulse, telling, settings, worker, interval_s, now - interval_s)
        self.outbox.announce = announce
        self.lease = Lease(lease_s, settings.idle_limit_s if idle_limit_s is None else idle_limit_s, now)
        self.inbox = Inbox()
        self.sign = StopSign(operation, self.pulse, self.inbox)
        self._worker = worker
        self._created_ms = created_ms
        self._finished = self._released = False
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
            self.outbox.backlog.append(one)
            waiting = len(self.outbox.backlog)
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
            self.outbox.end = outcome
        self._let_go()
        return True

    def retry_in(self, delay_s: float, said: Line) -> None:
        """Keep that this attempt gave up, to be sent after all else, and that the next one comes so much later."""
        with self.pulse.lock:
            if self.ended:
                return
            self.publish(said)
            self.outbox.hold_ms = round(1000 * (delay_s + (self.lease.lease_s or 0.0)))
        self._let_go()

    def mark(self) -> int:
        """Return a mark that is reached when all that was told so far is acknowledged."""
        with self.pulse.lock:
            mark = self.outbox.mark()
        self.pulse.wake()
        return mark

    def release(self) -> None:
        """Note that nobody works on it here any more: no beats. The garbage collector calls it, so it takes no lock."""
        self.lease.release()
        self._released = True

    def _let_go(self) -> None:
        self.inbox.close()
        self.trace.end(self.outbox.end)
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
        return self.outbox.ended

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
        return self.done or self.outbox.reached(mark)

    def unsent(self) -> int:
        """Return how many events it keeps that are not acknowledged."""
        with self.pulse.lock:
            return len(self.outbox)

    def lose(self, error: BrokerError) -> None:
        """Give the operation up: it is no longer this process's to report."""
        self._silence()
        self.trace.end(self.outbox.end)
        self.sign.lose(error)

    # What is sent, by one thread.

    def due_at(self) -> float:
        """Return the monotonic time, in seconds, from which there is a batch to take; infinity for never."""
        return inf if self.done else self.outbox.due_at(counting=not self._released)

    def take(self, now: float) -> list[Entry] | None:
        """Return the batch to send as of `now`, None if nothing is due; the same again until it is acknowledged."""
        if self.outbox.batch is None and self.due_at() <= now:
            self.outbox.freeze(now)
        return self.outbox.batch

    def call(self, now: float) -> Call | None:
        """Return the call that sends what `take` returns."""
        entries = self.take(now)
        return None if entries is None else self._call(entries, lease_ms=self.outbox.lease_ms)

    def acknowledged(self, answer: Answer) -> None:
        """Note that the batch last taken is stored."""
        if self.outbox.batch is None:
            return
        last = self.outbox.acknowledged()
        self.lease.heard(self.outbox.taken_at)
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
        return self._call((), as_observer=self.lease.lease_s is None)

    def reborn(self) -> None:
        """Start anew in a forked child, as another producer; what was waiting is the parent's to send, as are beats."""
        self.pulse.lock = RLock()  # a thread that is not here may have held it
        self.outbox.reborn()
        self.lease.release()
        self.inbox.reborn()
        self.pulse.dirty = False
        self._finished = self._finished or self.ended
        if self.done:
            self._silence()

    def _call(self, entries: Sequence[Entry], *, lease_ms: int | None = None, as_observer: bool = False) -> Call:
        return publish_call(
            self.operation,
            self.keys,
            entries,
            attempt=self.attempt,
            created_ms=self._created_ms,
            worker=self._worker if entries else "",
            lease_ms=lease_ms,
            as_observer=as_observer,
            traceparent=self.trace.traceparent if entries else "",
        )

    def heed(self, answer: Answer) -> None:
        """Note what a beat, or a batch, was answered."""
        if answer.cancel is not None:
            self.sign.ask(Stop(answer.cancel.reason, answer.cancel.by))

    def _silence(self) -> None:
        self.pulse.dirty = True  # and never cleared again: counting goes on without waking anyone
