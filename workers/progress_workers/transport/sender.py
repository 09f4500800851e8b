"""The background thread that sends the reports, those of many operations in one round trip."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from threading import Event

from progress_broker.errors import BrokerError, Gap, NotFound, StorageFull, StorageUnavailable
from progress_broker.model.publish import Publish
from progress_broker.runtime.backoff import Backoff
from progress_workers.core.reporter import Reporter
from progress_workers.core.wakeup import Wakeup
from progress_workers.errors import Cancelled
from progress_workers.transport.answers import AWAY, apply_answer, give_up, refuse
from progress_workers.transport.carrier import CallRejected, Carrier, ServerAway, delay_s
from progress_workers.transport.daemon import Background
from progress_workers.transport.opening.children import NewChildren
from progress_workers.transport.opening.operation import open_again, open_operation, or_cancelled
from progress_workers.transport.spooler import Spooler

logger = logging.getLogger(__name__)

MAX_PUBLISHES = 100
"""How many publishes are sent in one round trip."""
MAX_UNOPENED = 1000
"""How many operations wait for the broker to be created. Further ones are not reported."""
GATHER_S = 0.005
"""The shortest time between two rounds, in seconds: reports of many operations meanwhile share one round trip."""


@dataclass(frozen=True, eq=False)
class _Waiter:
    """A callback to call when all these reporters have reached their marks."""

    marks: Sequence[tuple[Reporter, int]]
    callback: Callable[[], None]

    def settled(self) -> bool:
        return all(reporter.reached(mark) for reporter, mark in self.marks)


class _Rejected:
    """A reporter whose publishes fail while others succeed. It is retried separately, and delays no other."""

    def __init__(self) -> None:
        self._backoff = Backoff()
        self.not_before = -inf

    def again(self, error: BrokerError) -> None:
        self.not_before = time.monotonic() + delay_s(self._backoff, error)


class Sender:
    """Sends for all reporters of this process, in one thread that starts when needed.

    While the broker is unavailable, it retries with growing, jittered delays. Meanwhile the reporters buffer.
    """

    def __init__(
        self,
        carrier: Carrier,
        opened: Callable[[Reporter], None],
        gone: Callable[[Reporter], None],
        spooler: Spooler | None = None,
        children: NewChildren | None = None,
    ) -> None:
        self._children = children or NewChildren()
        self._spooler = spooler
        self._carrier, self._opened, self._gone = carrier, opened, gone
        self._reporters: dict[Reporter, None] = {}
        self._wakeup = Wakeup()
        self._waiters: dict[_Waiter, None] = {}
        self._backoff = Backoff()
        self._not_before = -inf
        self._failing_since: float | None = None
        self.answered_at = -inf
        """When the broker answered the last time."""
        self._told: set[type[BrokerError]] = set()
        """The kinds of failures that the log has told of since the broker answered last."""
        self._told_of_too_many = False
        self._rejected: dict[Reporter, _Rejected] = {}
        self._thread = Background("progress-sender", self._run)

    def __contains__(self, reporter: Reporter) -> bool:
        return reporter in self._reporters

    @property
    def away(self) -> bool:
        """Whether the broker did not answer the last time."""
        return self._failing_since is not None

    def after_fork(self) -> None:
        """Let go of what belongs to the parent. In the child, another sender takes its place."""
        if self._spooler is not None:
            self._spooler.after_fork()

    def fail(self, error: BrokerError) -> None:
        """Note that the broker did not answer."""
        self._back_off(error)

    def open_later(self, reporter: Reporter, error: BrokerError | None) -> None:
        """Open a reporter's operation when the broker answers; `error` says why it could not be opened now."""
        if isinstance(error, CallRejected):
            self._back_off_one(reporter, error)
        elif error is not None:
            self._back_off(error)
        if sum(each.opening is not None for each in self.pending()) < MAX_UNOPENED:
            return
        reporter.discard()
        if not self._told_of_too_many:
            self._told_of_too_many = True
            logger.warning(
                "%d operations already wait for %s to be created; further ones are not reported, such as %s",
                MAX_UNOPENED,
                self._carrier.peer,
                reporter.operation,
            )

    def wake(self, reporter: Reporter) -> None:
        """Note that a reporter may have something to send. The sender serves it from now on, until it is done."""
        self._reporters.setdefault(reporter)
        self._wakeup.set()
        self._thread.start()

    def pending(self) -> list[Reporter]:
        """Return the reporters that the sender serves."""
        return list(self._reporters)

    def flush(self, reporters: Iterable[Reporter], timeout_s: float) -> bool:
        """Wait until all reports so far are acknowledged. Return whether this happened within the timeout.

        Operations that were given up are not waited for: their reports will never be acknowledged.
        """
        reporters = list(reporters)
        if not self.settled(reporters, timeout_s):
            return False
        lost = [each for each in reporters if each.tell_loss() or each.dropped or each.unconfirmed]
        return not lost

    def settled(self, reporters: Sequence[Reporter], timeout_s: float) -> bool:
        """Wait until nothing of what was reported so far will be sent any more. Return whether that was in time."""
        stored = Event()
        forget = self.when_stored(reporters, stored.set)  # this starts the thread, if that is still possible
        try:
            if (
                self._thread.is_current_thread
            ):  # a block was closed in the sender's thread, which sends when it continues
                return stored.is_set()
            return stored.wait(timeout_s) if self._thread.running else self._send_here(stored, timeout_s)
        finally:
            forget()

    def exit_timeout_s(self, most_s: float) -> float:
        """Return how long to wait for an operation's last reports: `most_s` in total, however many blocks wait."""
        since = self._failing_since
        return most_s if since is None else max(0.0, min(most_s, since + most_s - time.monotonic()))

    def when_stored(self, reporters: Iterable[Reporter], callback: Callable[[], None]) -> Callable[[], object]:
        """Call back, from any thread, once all reports so far are acknowledged. Returns a function to remove it."""
        waiter = _Waiter([(reporter, reporter.mark()) for reporter in reporters], callback)
        self._waiters[waiter] = None
        self._settle_waiters()  # everything may already be acknowledged
        return partial(self._forget, waiter)

    def _send_here(self, stored: Event, timeout_s: float) -> bool:
        """Send in this thread, as no other one runs. Return whether everything was stored within the timeout."""
        until = time.monotonic() + timeout_s
        while not stored.is_set() and (now := time.monotonic()) < until:
            if now >= self._not_before:
                self._round(now)
            time.sleep(GATHER_S)
        return stored.is_set()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            if began >= self._not_before:
                self._try_round(began)
            if self._spooler is not None and self.away:
                self._spooler.write(self.pending(), began)
                self._forget_done()
                self._settle_waiters()
            wait_s = self._next_at() - time.monotonic()
            if wait_s > 0:
                self._wakeup.wait(wait_s)
            time.sleep(max(0.0, began + GATHER_S - time.monotonic()))
            self._wakeup.clear()

    def _try_round(self, now: float) -> None:
        try:
            self._round(now)
        except Exception:  # this thread serves all operations
            logger.exception("an unexpected error occurred while sending progress; sending is retried")
            self._not_before = time.monotonic() + self._backoff.failed()

    def _next_at(self) -> float:
        """Return when there is something to do next."""
        if self._spooler is None:
            return max(self._due_at(), self._not_before)
        if self.away:
            return min(self._not_before, self._spooler.due_at(self.pending()))
        return max(min(self._due_at(), self._spooler.send_at), self._not_before)

    def _due_at(self) -> float:
        return -inf if self._children.waits else min((self._due(reporter) for reporter in self.pending()), default=inf)

    def _due(self, reporter: Reporter) -> float:
        if self._spooler is not None and self._spooler.holds(reporter):
            return inf
        rejected = self._rejected.get(reporter)
        return reporter.due_at() if rejected is None else max(reporter.due_at(), rejected.not_before)

    def _round(self, now: float) -> None:
        spooler = self._spooler
        if spooler is not None and spooler.send_at <= now and not self._send_spool(spooler):
            return
        due = [reporter for reporter in self.pending() if self._due(reporter) <= now]
        if all(self._open(reporter) for reporter in due if reporter.opening is not None):
            self._send_all([reporter for reporter in due if reporter.opening is None], now)
        self._tell_parents()
        self._forget_done()
        self._settle_waiters()

    def _tell_parents(self) -> None:
        if self._children.waits and not self.away:
            try:
                self._children.tell_parents(self._carrier)
            except AWAY as error:
                self._back_off(error)

    def _send_spool(self, spooler: Spooler) -> bool:
        """Send what is in the spool. Return whether the broker answered."""
        try:
            spooler.send_own()
            spooler.send_left()
        except AWAY as error:
            self._back_off(error)
            return False
        self._answered()
        return True

    def _forget_done(self) -> None:
        for reporter in self.pending():
            if reporter.done or reporter.idle:
                self._reporters.pop(reporter, None)
                self._rejected.pop(reporter, None)
                if reporter.unconfirmed:
                    logger.warning(
                        "no replica of Redis has the end of operation %s yet: a failover now would lose it",
                        reporter.operation,
                    )
                self._gone(reporter)
                if reporter.due_at() < inf:  # something was reported just now
                    self.wake(reporter)

    def _send_all(self, due: Sequence[Reporter], now: float) -> None:
        for start in range(0, len(due), MAX_PUBLISHES):
            if not self._send(due[start : start + MAX_PUBLISHES], now):
                break

    def _open(self, reporter: Reporter) -> bool:
        """Open the operation of a reporter that started while the broker was away. Return whether it answered."""
        opening = reporter.opening
        if opening is None:
            return True
        try:
            if reporter.missing is not None:
                reporter.opened(open_again(self._carrier, opening, reporter.attempt))
            else:
                reporter.opened(open_operation(self._carrier, opening))
        except CallRejected as error:
            self._back_off_one(reporter, error)
            return True
        except AWAY as error:
            self._back_off(error)
            return False
        except (BrokerError, Cancelled) as error:
            if isinstance(error, NotFound) and reporter.open_again(error):  # who can create it again may come
                self._rejected.setdefault(reporter, _Rejected()).again(error)
                return True
            if reporter.missing is not None and isinstance(error, BrokerError):
                give_up(reporter, reporter.missing if isinstance(error, NotFound) else error)
            else:
                refuse(reporter, error)
        self._answered()
        self._rejected.pop(reporter, None)
        if not reporter.done:
            self._opened(reporter)
            if reporter.missing is not None:
                self._children.parent_lost_events(reporter.operation)
        return True

    def _settle_waiters(self) -> None:
        for waiter in [waiter for waiter in list(self._waiters) if waiter.settled()]:
            if self._forget(waiter):  # otherwise another thread calls back
                waiter.callback()

    def _forget(self, waiter: _Waiter) -> bool:
        try:
            del self._waiters[waiter]
        except KeyError:
            return False
        return True

    def _send(self, reporters: Sequence[Reporter], now: float) -> bool:
        """Send one batch of each reporter. Return whether the broker answered."""
        batches = [(reporter, batch) for reporter in reporters if (batch := _batch(reporter, now)) is not None]
        if not batches:
            return True
        failure: BrokerError | None = None
        try:
            answers = self._carrier.publish([batch for _, batch in batches])
        except (StorageUnavailable, StorageFull) as error:
            self._back_off(error)
            return False
        for (reporter, _), stored in zip(batches, answers, strict=True):
            answer = or_cancelled(self._carrier, reporter, stored)
            if isinstance(answer, CallRejected):
                self._back_off_one(reporter, answer)
            elif isinstance(answer, Cancelled):
                refuse(reporter, answer)
            elif isinstance(answer, StorageUnavailable | StorageFull):
                failure = answer
            else:
                self._rejected.pop(reporter, None)
                if isinstance(answer, Gap):
                    self._children.parent_lost_events(reporter.operation)
                apply_answer(reporter, answer, reporter.acknowledged)
        if failure is not None:
            self._back_off(failure)
            return False
        self._answered()
        return True

    def _answered(self) -> None:
        self.answered_at = time.monotonic()
        if self._backoff.failing:
            logger.info("%s accepts progress again", self._carrier.peer)
            self._backoff.succeeded()
            self._failing_since, self._told_of_too_many = None, False
            self._told.clear()
            if self._spooler is not None:
                self._spooler.take_left()

    def _back_off_one(self, reporter: Reporter, error: BrokerError) -> None:
        if reporter not in self._rejected and not isinstance(error, ServerAway):  # that is told once for all
            logger.warning(
                "%s rejected progress of operation %s, which is buffered and sent again later: %s",
                self._carrier.peer,
                reporter.operation,
                error.detail,
            )
        self._rejected.setdefault(reporter, _Rejected()).again(error)

    def _back_off(self, error: BrokerError) -> None:
        if type(error) not in self._told:
            self._told.add(type(error))
            logger.warning(
                "progress could not be sent to %s, so it is buffered and sent again later: %s",
                self._carrier.peer,
                error.detail,
            )
            self._failing_since = self._failing_since or time.monotonic()
        self._not_before = time.monotonic() + max(self._backoff.failed(), error.retry_s or 0.0)


def _batch(reporter: Reporter, now: float) -> Publish | None:
    try:
        return reporter.question() or reporter.batch(now)
    except Exception as error:  # an unexpected value in one operation must not stop the others
        logger.exception("stopped reporting operation %s, because of an unexpected error", reporter.operation)
        reporter.lose(
            BrokerError(
                f"this process stopped reporting operation {reporter.operation}, because of an unexpected error:"
                f" {error!r}"
            )
        )
        return None
