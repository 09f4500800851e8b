"""The background thread that sends heartbeats for this process' workers, whatever else is busy or waiting.

It is separate from the sender's thread, which may have much to send or may wait for a reply. A process that is stopped
or killed sends no heartbeats. A process that computes does, unless it holds the interpreter lock longer than a lease.
"""

import logging
import time
from collections.abc import Sequence
from math import inf

from progress_broker.errors import BrokerError, Fenced, Gap, NotFound, OperationEnded, StorageFull, StorageUnavailable
from progress_broker.runtime.backoff import Backoff
from progress_workers.core.reporter import Reporter
from progress_workers.core.wakeup import Wakeup
from progress_workers.transport.answers import apply_answer
from progress_workers.transport.carrier import CallRejected, Carrier
from progress_workers.transport.daemon import Background
from progress_workers.transport.sender import MAX_PUBLISHES

logger = logging.getLogger(__name__)


class Heartbeats:
    """Sends heartbeats for all operations of this process, in one thread, which sleeps while there are none."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._reporters: dict[Reporter, None] = {}
        self._wakeup = Wakeup()
        self._next_at = inf
        self._backoff = Backoff()
        self._thread = Background("progress-heartbeats", self._run)

    def add(self, reporter: Reporter) -> None:
        """Send heartbeats for an operation from now on."""
        reporter.lease.wake = self._wakeup.set
        self._reporters.setdefault(reporter)
        self._thread.start()
        if reporter.heartbeat_due_at() < self._next_at:
            self._wakeup.set()

    def remove(self, reporter: Reporter) -> None:
        """Stop the heartbeats of an operation."""
        self._reporters.pop(reporter, None)

    def check_now(self, reporter: Reporter) -> None:
        """Send a heartbeat now: its reply says whether this process may still report the operation."""
        if reporter in self._reporters:
            reporter.lease.check_now()
            self._wakeup.set()

    def _run(self) -> None:
        while True:
            self._next_at = inf  # reporters that are added during this pass wake the next one
            now = time.monotonic()
            due = [reporter for reporter in list(self._reporters) if reporter.heartbeat_due_at() <= now]
            if not due:
                self._wait(now)
                continue
            try:
                pause_s = self._send(due, now)
            except Exception:  # this thread serves all operations
                logger.exception("an unexpected error occurred while sending heartbeats; sending is retried")
                pause_s = self._backoff.failed()
            if pause_s:
                time.sleep(pause_s)

    def _wait(self, now: float) -> None:
        """Wait until the next heartbeat is due, or a reporter was added."""
        self._next_at = min((reporter.heartbeat_due_at() for reporter in list(self._reporters)), default=inf)
        self._wakeup.wait(self._next_at - now)
        self._wakeup.clear()

    def _send(self, reporters: Sequence[Reporter], now: float) -> float:
        """Send a heartbeat for each reporter. Return how long to pause before the next call, in seconds."""
        for start in range(0, len(reporters), MAX_PUBLISHES):
            batch = reporters[start : start + MAX_PUBLISHES]
            beats = [reporter.heartbeat(now) for reporter in batch]
            try:
                answers = self._carrier.publish(beats)
            except (StorageUnavailable, StorageFull) as error:
                return self._failed(batch, error)
            for reporter, beat, answer in zip(batch, beats, answers, strict=True):
                if isinstance(answer, CallRejected):  # the others were answered
                    logger.debug("the heartbeat of operation %s failed: %s", reporter.operation, answer.detail)
                    continue
                if isinstance(answer, StorageUnavailable | StorageFull):
                    return self._failed(batch, answer)
                # The thread that sends may have opened it again meanwhile. So it asks, and acts.
                opens = reporter.opening is not None or beat.created_ms != reporter.created_ms
                asks = (opens and isinstance(answer, Fenced)) or (
                    reporter.nothing_stored and isinstance(answer, OperationEnded)
                )
                if asks or isinstance(answer, Gap | NotFound):
                    reporter.ask_stored()
                elif not reporter.ended:  # otherwise its own end may have been stored before this heartbeat
                    apply_answer(reporter, answer, reporter.apply_answer)
        self._backoff.succeeded()
        return 0.0

    def _failed(self, reporters: Sequence[Reporter], error: BrokerError) -> float:
        logger.debug("heartbeats could not be sent; sending is retried: %s", error.detail)
        for reporter in reporters:
            reporter.lease.check_now()
        return max(self._backoff.failed(), error.retry_s or 0.0)
