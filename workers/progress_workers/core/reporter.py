"""The worker's core, without I/O: it receives an operation's reports and produces publishes.

Everything is sent in batches. A batch stays unchanged, with its sequence numbers, until it is acknowledged: if it is
sent twice, it is stored once. Meanwhile newer progress replaces older progress, and logs wait in a bounded buffer. So
an unavailable Redis needs no more memory after an hour than after a second.
"""

import time
from collections.abc import Callable, Sequence
from math import inf
from threading import RLock

from progress_broker.errors import BrokerError, Fenced, NotFound, OperationEnded
from progress_broker.model.entry import NewEvent, build_shapes
from progress_broker.model.metadata import FIELD, MAX_METADATA_BYTES
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish, Published, WorkerView
from progress_broker.settings import Settings
from progress_workers.core.cancellation import Cancellation
from progress_workers.core.inbox import Inbox
from progress_workers.core.lease import Lease
from progress_workers.core.opening import Opening, OpeningAgain
from progress_workers.core.outgoing.backlog import LEVELS, Line, level_of
from progress_workers.core.outgoing.outbox import BATCH_LINES, Outbox
from progress_workers.core.outgoing.sent import Refill
from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.core.progress.progress import Progress
from progress_workers.core.progress.stage import MAX_NAME_CHARS, Stage
from progress_workers.core.progress_encoder import ProgressEncoder
from progress_workers.errors import CancelInfo
from progress_workers.tracing import NO_TRACE, NoTrace, begin
from progress_workers.values import brief, text
from progress_workers.values.complaints import Complaints

INTERVAL_S = 0.1
"""The default shortest time between two progress updates of one operation; the first and the last are always sent."""

_CONFLICTS = 4
"""How often in a row an attempt that Redis does not know is begun again."""
UNCONFIRMED_S = 10.0
"""How long an end is sent again that no replica of Redis has yet."""
_UNCONFIRMED_EVERY_S = 0.5
_UNCONFIRMED_AWAITED_S = 1.0  # how long the end of the process waits for that


class Reporter:
    """The reports of one operation from this process.

    User threads report to it. One thread takes batches and acknowledges them, another one sends its heartbeats. `wake`
    is called, from any thread, when there may be something new to take; it must not block.
    """

    def __init__(
        self,
        operation: str,
        settings: Settings,
        *,
        total: float | None = None,
        unit: str | None = None,
        opening: Opening | None = None,
        joins: bool = False,
        attempt: int = 1,
        created_ms: int | None = None,
        worker: str = "",
        publish_running: bool = False,
        lease_s: float | None = None,
        idle_timeout_s: float | None = None,
        interval_s: float = INTERVAL_S,
        clock: Clock | None = None,
        wake: "Callable[[Reporter], None] | None" = None,
    ) -> None:
        build_shapes()  # now, because a block may be left while the process is already shutting down
        self.operation = operation
        self.trace: NoTrace = NO_TRACE
        self._traced = False
        self.opening = opening
        """What has to be done before anything can be sent; None: nothing. Until then, reports are buffered."""
        self._again = OpeningAgain()
        self.parent = opening.new.parent if opening is not None and opening.new is not None else None
        self.joins = joins
        """Whether this is one of several processes that count, and another one ends the operation."""
        self.attempt = attempt
        self.heard = (0, 0)
        """The position up to which its signals were read."""
        self.superseded = False
        """Whether a signal reported that another attempt took over."""
        self._clock = clock = clock or Clock()
        now = clock.monotonic()
        self._began_at, self._ended_at = now, inf
        self.complaints = Complaints(operation, lambda said: self.publish(Line(said, "warning", None)))
        self.dirty_flag = DirtyFlag(lambda: wake(self) if wake else None, self.complaints.add)
        self.progress = Progress(self.dirty_flag, clock, total=total, unit=unit)
        encoder = ProgressEncoder(operation, self.progress, settings, now)
        # The first progress does not wait for the interval.
        self.outbox = Outbox(self.dirty_flag, encoder, settings, worker, interval_s, now - interval_s)
        self.outbox.publish_running = publish_running
        self.lease = Lease(lease_s, settings.idle_timeout_s if idle_timeout_s is None else idle_timeout_s, now)
        self.inbox = Inbox()
        self.cancellation = Cancellation(operation, self.dirty_flag, self.inbox)
        self._worker = worker
        self.created_ms = created_ms
        """When the operation was created, which tells it from another one that gets its id later."""
        self._finished = self._released = False
        self._discarded = self._told = False
        self._assumes_running = False
        self._begins, self._conflicts = False, 0
        self._asks = self._lost_events = False
        self._lost_created_ms: int | None = None
        self.unconfirmed = False
        """Whether its end is stored, but Redis has replicas and none of them has it, as far as is known."""
        self._ended_once_at, self._again_at = inf, -inf
        if total is not None or unit is not None:
            self.dirty_flag.dirty = True  # reported even before the first item is done
        if opening is not None and opening.new is not None:
            self.outbox.metadata.begin(opening.new.metadata)
        if joins:
            self.progress.join()

    # Reports, from any thread.

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Add a log line. Without a stage, it belongs to the running stage, if exactly one stage runs."""
        said, known = text(message), level_of(level)
        named = None if stage is None else text(stage, MAX_NAME_CHARS)
        if known is None:
            levels = ", ".join(sorted(LEVELS))
            self.complaints.add(
                "level", f"the log level {brief(level)} is unknown, so it is shown as info; known: {levels}"
            )
        with self.dirty_flag.lock:
            self.publish(Line(said, known or "info", named or self.progress.running_stage))

    def publish(self, one: Line | NewEvent) -> None:
        """Add a log line or a custom event."""
        with self.dirty_flag.lock:
            if self.ended or self.done:
                return
            self.outbox.backlog.append(one)
            waiting = len(self.outbox.backlog)
        if waiting in (1, BATCH_LINES):
            self.dirty_flag.wake()

    def update_metadata(self, changes: object) -> None:
        """Change the operation's metadata; None as a value removes a key."""
        with self.dirty_flag.lock:
            if self.ended or self.done:
                return
            self.outbox.metadata.update(changes)
        self.dirty_flag.wake()

    def stage(self, name: str, weight: float | None = None, total: float | None = None) -> Stage:
        """Return the stage of this name; the first call creates it."""
        return self.progress.stage(name, weight, total, self.log)

    def end(self, outcome: NewEvent) -> bool:
        """Store the operation's end, which is sent after everything else. Return whether this was the first end."""
        with self.dirty_flag.lock:
            if self.ended:
                return False
            self.outbox.end = outcome
            self._ended_at = self._clock.monotonic()
        self._close()
        return True

    def retry_in(self, delay_s: float, said: Line) -> None:
        """Record that this attempt failed and the next one follows within `delay_s`; sent after everything else."""
        with self.dirty_flag.lock:
            if self.ended:
                return
            self.publish(said)
            self.outbox.hold_ms = round(1000 * (delay_s + (self.lease.lease_s or 0.0)))
        self._close()

    def mark(self) -> int:
        """Return a mark that is reached when all reports so far are acknowledged."""
        with self.dirty_flag.lock:
            mark = self.outbox.mark()
        self.dirty_flag.wake()
        return mark

    @property
    def elapsed_ms(self) -> int:
        """How long the operation has run, or had when its end was reported here."""
        return round(1000 * max(0.0, min(self._clock.monotonic(), self._ended_at) - self._began_at))

    def release(self) -> None:
        """Stop heartbeats, because this process no longer works on the operation. The garbage collector calls this, so
        it takes no lock."""
        self.lease.release()
        self._released = True

    def _close(self) -> None:
        self.inbox.close()
        self.trace.end(self.outbox.end)
        self.dirty_flag.wake()

    # The state of reporting.

    @property
    def lost(self) -> BrokerError | None:
        """Why this process may no longer report the operation, or None. After this, nothing is sent."""
        return self.cancellation.lost

    @property
    def status(self) -> str:
        """What this process knows of the operation's status, for people."""
        if self.lost is not None:
            return f"no longer reported ({self.lost.code})"
        if self.outbox.end is not None:
            return str(self.outbox.end.status)
        if self.outbox.ended:
            return "waiting for its next attempt"
        if self._discarded:
            return "not reported"
        if self.cancellation.stop is not None:
            return "cancelling"
        return "running" if self.opening is None else "running, not created yet"

    @property
    def dropped(self) -> bool:
        """Whether some reports are not stored and never will be.

        If another attempt took the operation over, or somebody else ended it, late reports do not count as dropped.
        """
        return self._told or (self.lost is not None and not isinstance(self.lost, Fenced | OperationEnded))

    def tell_loss(self) -> bool:
        """Return whether Redis lost events for good since this was asked before."""
        told, self._lost_events = self._lost_events, False
        return told

    @property
    def ended(self) -> bool:
        """Whether an end was reported, or a retry."""
        return self.outbox.ended

    @property
    def done(self) -> bool:
        """Whether nothing more will be sent."""
        return self._finished or self._discarded or self.lost is not None

    @property
    def idle(self) -> bool:
        """Whether nothing more will be sent, unless code that still holds the operation reports again."""
        return self._released and self.due_at() == inf

    @property
    def nothing_stored(self) -> bool:
        """Whether it has created its operation, or found it, and nothing that it sent since is known to be stored."""
        opening = self._again.opening
        return opening is not None and opening.new is not None and not self.outbox.stored

    def reached(self, mark: int) -> bool:
        """Return whether everything before the mark is acknowledged, or never will be."""
        if self.unconfirmed:
            now = self._clock.monotonic()
            answered = now < self._again_at + _UNCONFIRMED_EVERY_S  # else a failover may be under way
            if answered and now >= self._ended_once_at + _UNCONFIRMED_AWAITED_S:
                return True
        return self.done or self.outbox.reached(mark)

    def unsent(self) -> int:
        """Return how many buffered events are not acknowledged yet."""
        with self.dirty_flag.lock:
            return len(self.outbox)

    def lose(self, error: BrokerError) -> None:
        """Stop reporting the operation, because this process may no longer do so; `error` says why."""
        self._finish()
        self.trace.end(self.outbox.end)
        self.cancellation.lose(error)

    def discard(self, *, told: bool = True) -> None:
        """Report nothing from now on, while the work goes on as if it were reported.

        `told` says whether `dropped` tells of it, as where reports should have been stored.
        """
        self._discarded, self._told = True, told
        self._finish()
        with self.dirty_flag.lock:
            self.outbox.backlog.clear()

    # Opening, before anything is sent.

    def begin_trace(self, traceparent: str = "") -> None:
        """Begin its span, once, in the context of the caller; without one, as a part of the given trace."""
        if self.opening is not None and not self._traced:
            self._traced = True
            self.trace = begin(self.operation, self.opening.new.kind if self.opening.new else "", traceparent)

    def opened(self, state: WorkerView) -> None:
        """Begin to report an operation that is in this state, or has just been found to be in it."""
        opening, again = self.opening, self.missing is not None
        if opening is not None and opening.only_creates:
            self._finished, self.opening = True, None
            self._finish()
            return
        if opening is not None and not again:
            self._again.opening = opening
            self.begin_trace(state.traceparent)
            # What `start` creates or finds counts from 0, but its percentage continues.
            self.progress.resume(state.progress, state.counts, joins=self.joins, percent_only=opening.new is not None)
            self.outbox.metadata.begin(state.metadata)
            if state.started_ms is not None:
                self._began_at = self._clock.monotonic() - max(0.0, time.time() - state.started_ms / 1000)
        self.parent = self.parent or state.parent
        self._lost_created_ms = self.created_ms
        self.attempt, self.created_ms = state.attempt, state.created_ms
        running = state.status not in (Status.PENDING, Status.STALLED)
        if again and not self.outbox.sent.complete_after:
            pass  # what is sent again says that it is running
        elif not self._assumes_running:
            self.outbox.publish_running = not running
        elif running:
            self.outbox.leave_out("status")
        # If several processes share an operation, only the one that ends it keeps its lease.
        self.lease.begin(None if self.joins else state.lease_s, state.idle_timeout_s)
        self.opening = None
        if state.cancel is not None:
            self.cancellation.request(CancelInfo(state.cancel.reason, state.cancel.by))

    def open_again(self, rejection: NotFound) -> bool:
        """Open the operation again, because Redis does not have it any more. Return False if that can't help."""
        if self._released and self.outbox.batch is None:
            return False  # nobody works on it here any more
        opening = self.how_to_open_again(rejection)
        if opening is not None:
            self.opening, self._again_at = opening, -inf
        return opening is not None

    def how_to_open_again(self, rejection: NotFound) -> Opening | None:
        """Return how to open the operation again, as Redis does not have it any more; None: that can't help."""
        return self._again.missed(self._clock.monotonic(), rejection)

    def found_again(self, state: WorkerView) -> None:
        """Go on with an operation that was created again while this process wrote to a spool."""
        self.attempt, self.created_ms = state.attempt, state.created_ms

    def follow_creation(self, other: "Reporter") -> None:
        """Go on with an operation that another reporter of this process has created again, if it is the same."""
        if self.operation == other.operation and self.created_ms == other._lost_created_ms:
            self.created_ms = other.created_ms

    @property
    def missing(self) -> NotFound | None:
        """What the broker said when it did not have the operation any more; None once something is stored again."""
        return self._again.rejection

    # Spooling, instead of sending, by the thread that sends.

    def spool_due_at(self) -> float:
        """Return when there is something to write to a spool."""
        if self.done:
            return inf
        unwritten = self.opening is not None and not self._assumes_running
        return -inf if unwritten else self.outbox.due_at(counting=not self._released)

    def assume_running(self) -> None:
        """Report that the operation is running, before it is known whether it is: this is corrected when it is sent."""
        if not self._assumes_running:
            self._assumes_running = self.outbox.publish_running = True

    def spooled(self) -> None:
        """Note that the last batch is written: this process has done what it can."""
        if self.outbox.batch is not None and self.outbox.spooled():
            self._finished = True
            self.dirty_flag.dirty = True  # as in `_finish`, but what it sent before may have to be sent again

    def let_go_of_sent(self) -> None:
        """Note that what was spooled is sent."""
        if self.done:
            self.outbox.sent.clear()

    # Sending, by one thread.

    def due_at(self) -> float:
        """Return the monotonic time, in seconds, at which there is a batch to take; infinity for never."""
        if self.done:
            return inf
        if self.opening is not None or self._asks:
            return -inf
        return max(self._again_at, self.outbox.due_at(counting=not self._released))

    def take(self, now: float) -> list[NewEvent] | None:
        """Return the batch to send as of `now`; None if nothing is due. It is the same until it is acknowledged."""
        if self.outbox.batch is None and self.due_at() <= now:
            self.outbox.freeze(now)
        return self.outbox.batch

    def batch(self, now: float) -> Publish | None:
        """Return the publish that sends the batch of `take`."""
        entries = self.take(now)
        return None if entries is None else self._publish(entries, lease_ms=self.outbox.lease_ms)

    def ask_stored(self) -> None:
        """Ask the broker next whether all that was stored still is: a heartbeat was told that something is not."""
        if not self.done:
            self._asks = True
            self.dirty_flag.wake()

    def question(self) -> Publish | None:
        """Return the publish that asks this, if it has to be asked before there is a batch, which asks it too."""
        asks = self._asks and self.outbox.batch is None
        return self.plain_question() if asks else None

    def plain_question(self) -> Publish:
        """Return the publish that asks this, whatever else there is to send."""
        return self._publish((), as_observer=self.lease.lease_s is None)

    def refill(self, last: int) -> Refill:
        """Send again what Redis has lost: all that it had stored after the seq `last`. Return what that is."""
        refill = self.outbox.refill(last)
        self._again_at = -inf
        self._asks, self._lost_events = False, self._lost_events or refill.gone > 0
        return refill

    def take_lost(self, last: int) -> tuple[Refill, list[Publish]]:
        """Return what Redis has lost, as `refill` does, and the publishes that send it again, for another to send."""
        refill = self.outbox.take_lost(last)
        self._lost_events = self._lost_events or refill.gone > 0
        return refill, [self._publish(batch)._replace(after=None) for batch in refill.batches]

    def begin_again(self) -> bool:
        """Begin this attempt again, because Redis does not know it: a failover may have lost its beginning.

        Return False if that does not help.
        """
        if self.attempt == 1 or self._conflicts == _CONFLICTS:
            return False
        self._begins, self._conflicts = not self._begins, self._conflicts + 1
        return True

    def leave_out_metadata(self) -> bool:
        """Go on without the changes of metadata, which Redis rejected. Return whether there were any."""
        left_out = self.outbox.leave_out(FIELD)
        if left_out:
            self.complaints.add(
                FIELD,
                f"changes of the metadata were left out: with those of others it exceeds {MAX_METADATA_BYTES:,} bytes",
            )
        return left_out

    def acknowledged(self, answer: Published) -> None:
        """Note that the last batch is stored, or that all before is, if that was asked."""
        self._asks = False
        if self.outbox.batch is None:
            self.apply_answer(answer)
            return
        if answer.counts is not None:
            self.progress.hear(answer.counts)
        if self._waits_for_replica(answer):
            return
        last = self.outbox.acknowledged(self._clock.monotonic())
        self.lease.heard(self.outbox.taken_at)
        self.apply_answer(answer)
        if last:
            self._finished = True
            self._finish()

    def _waits_for_replica(self, answer: Published) -> bool:
        """Return whether to send the end again, as no replica has it yet: a failover now would lose it."""
        now = self._clock.monotonic()
        self.unconfirmed = answer.confirmed is False and self.outbox.at_end
        if not self.unconfirmed:
            return False
        self._ended_once_at = min(self._ended_once_at, now)
        self._again_at = now + _UNCONFIRMED_EVERY_S
        self.outbox.stored_once()
        self.apply_answer(answer)
        return now < self._ended_once_at + UNCONFIRMED_S

    def conclude(self) -> None:
        """Send nothing more: the end was stored."""
        self.unconfirmed, self._finished = False, True
        self._finish()

    # Heartbeats, by another thread.

    def heartbeat_due_at(self) -> float:
        """Return the monotonic time, in seconds, at which a heartbeat is due; infinity for never."""
        return inf if self.done or self.ended or self.opening is not None else self.lease.due_at()

    def heartbeat(self, now: float) -> Publish:
        """Return the heartbeat. Its answer also says whether this process may still report the operation."""
        self.lease.heartbeat_sent(now)
        self.outbox.sent.drop_old(now)
        return self._publish((), as_observer=self.lease.lease_s is None)

    def after_fork(self) -> None:
        """Restart in a forked child as a new producer. The parent sends what was waiting, and the heartbeats."""
        self.dirty_flag.lock = RLock()  # a thread that exists only in the parent may hold the old one
        self.progress.join()
        self.outbox.after_fork()
        self.lease.release()
        self.inbox.after_fork()
        self.dirty_flag.dirty = False
        self._finished = self._finished or self.ended
        if self.done:
            self._finish()

    def _publish(
        self, entries: Sequence[NewEvent], *, lease_ms: int | None = None, as_observer: bool = False
    ) -> Publish:
        return Publish(
            self.operation,
            entries,
            self.attempt,
            self._begins,
            self.created_ms,
            self._worker if entries else "",
            lease_ms=lease_ms,
            as_observer=as_observer,
            traceparent=self.trace.traceparent if entries else "",
            after=(self.outbox.producer, self.outbox.stored) if self.outbox.stored else None,
        )

    def apply_answer(self, answer: Published) -> None:
        """Process the answer to a heartbeat or a batch."""
        self._begins, self._conflicts = False, 0
        self._again.stored()
        if answer.cancel is not None:
            self.cancellation.request(CancelInfo(answer.cancel.reason, answer.cancel.by))

    def _finish(self) -> None:
        self.outbox.sent.clear()
        self.dirty_flag.dirty = True  # never cleared again: further counting wakes nobody
