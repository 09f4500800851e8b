"""The background thread that says that this process' workers are alive, whatever else is busy or waits.

It is not the sender's thread: that may have much to send, or be waiting for an answer. A process that is stopped, or
killed, beats no more; one that computes does, unless its computing holds the interpreter for longer than a lease.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from typing import Any

from progress_broker.errors import BrokerError, StorageFull, StorageUnavailable
from progress_broker.runtime.backoff import Backoff
from progress_workers.core.reporter import Reporter
from progress_workers.transport.daemon import Background
from progress_workers.transport.pipeline import CallRefused, carry
from progress_workers.transport.sender import PIPELINE_CALLS, settle

logger = logging.getLogger(__name__)


class Beats:
    """Beats for all operations of this process. One thread, that sleeps while there are none."""

    def __init__(self, client: Callable[[], Any]) -> None:
        self._client = client
        self._reporters: dict[Reporter, None] = {}
        self._news: SimpleQueue[None] = SimpleQueue()  # without a lock: see `Background`
        self._next_at = inf
        self._backoff = Backoff()
        self._thread = Background("progress-beats", self._run)

    def add(self, reporter: Reporter) -> None:
        """Beat for an operation from now on."""
        self._reporters.setdefault(reporter)
        self._thread.start()
        if reporter.beat_at() < self._next_at:
            self._news.put(None)

    def remove(self, reporter: Reporter) -> None:
        """Beat no more for an operation."""
        self._reporters.pop(reporter, None)

    def look(self, reporter: Reporter) -> None:
        """Ask now whether an operation still is this process's."""
        if reporter in self._reporters:
            reporter.lease.look()
            self._news.put(None)

    def _run(self) -> None:
        while True:
            self._next_at = inf  # whatever is added while the others are looked at is news
            now = time.monotonic()
            due = [reporter for reporter in list(self._reporters) if reporter.beat_at() <= now]
            if not due:
                self._wait(now)
                continue
            try:
                pause_s = self._beat(due, now)
            except Exception:  # this thread serves all operations
                logger.exception("beating failed in a way that was not foreseen")
                pause_s = self._backoff.failed()
            if pause_s:
                time.sleep(pause_s)

    def _wait(self, now: float) -> None:
        """Wait until the next beat is due, or there is news."""
        self._next_at = min((reporter.beat_at() for reporter in list(self._reporters)), default=inf)
        with suppress(Empty):
            self._news.get(timeout=None if self._next_at == inf else max(0.0, self._next_at - now))
            while True:
                self._news.get_nowait()

    def _beat(self, reporters: Sequence[Reporter], now: float) -> float:
        """Send a beat for each; return how long to leave Redis alone, in seconds."""
        for start in range(0, len(reporters), PIPELINE_CALLS):
            some = reporters[start : start + PIPELINE_CALLS]
            try:
                replies = carry(self._client(), [reporter.beat(now) for reporter in some])
            except (StorageUnavailable, StorageFull) as error:
                return self._failed(some, error)
            for reporter, reply in zip(some, replies, strict=True):
                if isinstance(reply, CallRefused):  # the others' are answered
                    logger.debug("operation %s has no beat: %s", reporter.operation, reply.detail)
                    continue
                if isinstance(reply, StorageUnavailable | StorageFull):
                    return self._failed(some, reply)
                if not reporter.ended:  # else its own end may have been quicker
                    settle(reporter, reply, reporter.heed)
        self._backoff.succeeded()
        return 0.0

    def _failed(self, reporters: Sequence[Reporter], error: BrokerError) -> float:
        logger.debug("beats can't be sent now: %s", error.detail)
        for reporter in reporters:
            reporter.lease.look()
        return self._backoff.failed()
