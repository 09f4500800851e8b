"""The background thread that sends what reporters have to say, many operations in one round trip."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from progress_broker.errors import BrokerError, NotFound, StorageFull, StorageUnavailable
from progress_broker.model.operation import Answer
from progress_broker.operations.commands import read_answer
from progress_broker.runtime.backoff import Backoff
from progress_broker.storage.scripts import Call
from progress_workers.core.reporter import Reporter
from progress_workers.transport.daemon import Background
from progress_workers.transport.pipeline import CallRefused, carry

logger = logging.getLogger(__name__)

PIPELINE_CALLS = 100
"""Calls in one round trip."""
GATHER_S = 0.005
"""Rounds are at least so far apart: what many operations have to say meanwhile shares a round trip."""


@dataclass(frozen=True, eq=False)
class _Waiter:
    """Who wants to know when some reporters' marks are reached."""

    marks: Sequence[tuple[Reporter, int]]
    callback: Callable[[], None]

    def settled(self) -> bool:
        return all(reporter.reached(mark) for reporter, mark in self.marks)


class _Refused:
    """A reporter whose calls Redis refuses, but not others': it is tried again by itself, and holds up nobody."""

    def __init__(self) -> None:
        self._backoff = Backoff()
        self.not_before = -inf

    def again(self) -> None:
        self.not_before = time.monotonic() + self._backoff.failed()


class Sender:
    """Sends for all reporters of this process, over one client. One thread, started when there is something to send.

    While Redis is away it tries again with growing, jittered delays; the reporters hold what they have.
    """

    def __init__(self, client: Callable[[], Any], gone: Callable[[Reporter], None]) -> None:
        self._client, self._gone = client, gone
        self._reporters: dict[Reporter, None] = {}
        self._news: SimpleQueue[None] = SimpleQueue()  # without a lock: see `Background`
        self._waiters: dict[_Waiter, None] = {}
        self._backoff = Backoff()
        self._not_before = -inf
        self._failing_since: float | None = None
        self._refused: dict[Reporter, _Refused] = {}
        self._thread = Background("progress-sender", self._run)

    def __contains__(self, reporter: Reporter) -> bool:
        return reporter in self._reporters

    def wake(self, reporter: Reporter) -> None:
        """Say that a reporter may have something to send; from now on it is looked after until it is done."""
        self._reporters.setdefault(reporter)
        self._news.put(None)
        self._thread.start()

    def pending(self) -> list[Reporter]:
        """Return the reporters that are looked after."""
        return list(self._reporters)

    def flush(self, reporters: Iterable[Reporter], timeout_s: float) -> bool:
        """Wait until all these were told so far is acknowledged; return whether it was, within the timeout.

        It is not waited for what never will be: that of an operation that was given up.
        """
        reporters = list(reporters)
        return self._settled(reporters, timeout_s) and not any(reporter.dropped for reporter in reporters)

    def _settled(self, reporters: Sequence[Reporter], timeout_s: float) -> bool:
        stored = Event()
        forget = self.when_stored(reporters, stored.set)  # which starts the thread, if that is still possible
        try:
            if self._thread.here:  # a block was closed in it: it sends when it goes on
                return stored.is_set()
            return stored.wait(timeout_s) if self._thread.running else self._send_here(stored, timeout_s)
        finally:
            forget()

    def patience_s(self, most_s: float) -> float:
        """Return how long to wait for the last of an operation: `most_s` in all, however many wait for this Redis."""
        since = self._failing_since
        return most_s if since is None else max(0.0, min(most_s, since + most_s - time.monotonic()))

    def when_stored(self, reporters: Iterable[Reporter], callback: Callable[[], None]) -> Callable[[], object]:
        """Call back, from any thread, once all these were told so far is acknowledged; return what takes it back."""
        waiter = _Waiter([(reporter, reporter.mark()) for reporter in reporters], callback)
        self._waiters[waiter] = None
        self._settle_waiters()  # it may have been before anybody waited
        return partial(self._forget, waiter)

    def _send_here(self, stored: Event, timeout_s: float) -> bool:
        """Send in this thread, as there is no other any more; return whether all was stored, within the timeout."""
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
            wait_s = max(self._due_at(), self._not_before) - time.monotonic()
            if wait_s > 0:
                with suppress(Empty):
                    self._news.get(timeout=None if wait_s == inf else wait_s)
            time.sleep(max(0.0, began + GATHER_S - time.monotonic()))
            # Emptied before the reporters are looked at: what comes from here on wakes the next round.
            for _ in range(self._news.qsize()):
                self._news.get()

    def _try_round(self, now: float) -> None:
        try:
            self._round(now)
        except Exception:  # this thread serves all operations
            logger.exception("sending failed in a way that was not foreseen")
            self._not_before = time.monotonic() + self._backoff.failed()

    def _due_at(self) -> float:
        return min((self._due(reporter) for reporter in self.pending()), default=inf)

    def _due(self, reporter: Reporter) -> float:
        refused = self._refused.get(reporter)
        return reporter.due_at() if refused is None else max(reporter.due_at(), refused.not_before)

    def _round(self, now: float) -> None:
        due = [reporter for reporter in self.pending() if self._due(reporter) <= now]
        for start in range(0, len(due), PIPELINE_CALLS):
            if not self._send(due[start : start + PIPELINE_CALLS], now):
                break
        for reporter in self.pending():
            if reporter.done or reporter.idle:
                self._reporters.pop(reporter, None)
                self._refused.pop(reporter, None)
                self._gone(reporter)
                if reporter.due_at() < inf:  # it was told something just now
                    self.wake(reporter)
        self._settle_waiters()

    def _settle_waiters(self) -> None:
        for waiter in [waiter for waiter in list(self._waiters) if waiter.settled()]:
            if self._forget(waiter):  # else another thread calls back
                waiter.callback()

    def _forget(self, waiter: _Waiter) -> bool:
        try:
            del self._waiters[waiter]
        except KeyError:
            return False
        return True

    def _send(self, reporters: Sequence[Reporter], now: float) -> bool:
        """Send a batch of each; return whether Redis took what it was sent."""
        batches = [(reporter, call) for reporter in reporters if (call := _call(reporter, now)) is not None]
        if not batches:
            return True
        held: BrokerError | None = None
        try:
            replies = carry(self._client(), [call for _, call in batches])
        except (StorageUnavailable, StorageFull) as error:
            self._hold(error)
            return False
        for (reporter, _), reply in zip(batches, replies, strict=True):
            if isinstance(reply, CallRefused):
                self._hold_one(reporter, reply)
            elif isinstance(reply, StorageUnavailable | StorageFull):
                held = reply
            else:
                self._refused.pop(reporter, None)
                settle(reporter, reply, reporter.acknowledged)
        if held is not None:
            self._hold(held)
            return False
        if self._backoff.failing:
            logger.info("progress is sent again")
            self._backoff.succeeded()
            self._failing_since = None
        return True

    def _hold_one(self, reporter: Reporter, error: BrokerError) -> None:
        if reporter not in self._refused:
            logger.warning("progress of operation %s is held back: %s", reporter.operation, error.detail)
        self._refused.setdefault(reporter, _Refused()).again()

    def _hold(self, error: BrokerError) -> None:
        if not self._backoff.failing:
            logger.warning("progress is held back until Redis takes it: %s", error.detail)
            self._failing_since = time.monotonic()
        self._not_before = time.monotonic() + self._backoff.failed()


def _call(reporter: Reporter, now: float) -> Call | None:
    try:
        return reporter.call(now)
    except Exception as error:  # odd values in one operation must not silence the others
        logger.exception("operation %s can't be reported any more", reporter.operation)
        reporter.lose(BrokerError(f"operation {reporter.operation} can't be reported any more: {error!r}"))
        return None


def settle(reporter: Reporter, reply: Any, take: Callable[[Answer], None]) -> None:
    """Have the answer to a reporter's call taken; or, if the script refused it, the operation given up."""
    try:
        take(read_answer(reply))
    except NotFound:
        give_up(
            reporter,
            NotFound(
                f"Redis does not have operation {reporter.operation} any more: a failover or a restart lost it,"
                " or it was deleted, or its time has passed. What was stored of it is gone, too"
            ),
        )
    except BrokerError as refusal:
        give_up(reporter, refusal)


def give_up(reporter: Reporter, refusal: BrokerError) -> None:
    """Report an operation no longer, and say so once, with what is lost by it."""
    if reporter.lost is None:
        unsent = reporter.unsent()
        dropped = f"; {unsent} events that were not stored yet are dropped" if unsent else ""
        logger.warning("operation %s is no longer reported: %s%s", reporter.operation, refusal.detail, dropped)
    reporter.lose(refusal)
