"""Moves reports that can't be sent to the spool, and sends what is in the spool."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from math import inf

from progress_broker.errors import BrokerError, Gap, NotFound
from progress_broker.model.publish import Publish, WorkerView
from progress_workers.core.reporter import Reporter
from progress_workers.errors import Cancelled
from progress_workers.spool.records import encode
from progress_workers.spool.spool import Spool
from progress_workers.transport.answers import AWAY, log_refill
from progress_workers.transport.carrier import CallRejected, Carrier
from progress_workers.transport.opening.operation import open_again
from progress_workers.transport.spool_file_sender import MAX_PUBLISHES, SpoolFileSender, log_drop, raise_away

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""How long to wait before the next try, after a record could not be written."""


class Spooler:
    """The spool of one sender, whose thread calls it. Methods that send raise what a carrier raises."""

    def __init__(self, spool: Spool, carrier: Carrier, opened: Callable[[Reporter], None]) -> None:
        self._spool, self._carrier, self._opened = spool, carrier, opened
        self._reporters: dict[str, Reporter] = {}
        """The reporters of the records in the own file, by their keys."""
        self._unasked: dict[str, Reporter] = {}
        """The reporters of which Redis may have lost what it had stored before they began to write to the spool."""
        self._again: dict[str, deque[Publish]] = {}
        """What it has lost, by the reporters' keys."""
        self._own: SpoolFileSender | None = None
        self._left: list[SpoolFileSender] = []
        """The files of dead processes, which this process has taken."""
        self._not_before = -inf
        self.take_left()

    @property
    def waits(self) -> bool:
        """Whether there is something to send."""
        return self._own is not None or bool(self._left)

    @property
    def send_at(self) -> float:
        """When there is something to try to send; infinity for never."""
        own = inf if self._own is None else self._own.send_at
        return min([own, *(left.send_at for left in self._left)])

    def holds(self, reporter: Reporter) -> bool:
        """Whether what is in the spool of a reporter's operation waits, and is to be sent before what is in memory."""
        return self._own is not None and self._own.holds(reporter.operation)

    def due_at(self, reporters: Iterable[Reporter]) -> float:
        """Return when one of these reporters has something to write."""
        return max(self._not_before, min((reporter.spool_due_at() for reporter in reporters), default=inf))

    def write(self, reporters: Iterable[Reporter], now: float) -> None:
        """Write what these reporters have to send, instead of sending it. They go on as if it were stored."""
        for reporter in reporters:
            if now < self._not_before:
                return
            if reporter.spool_due_at() <= now and not self._write(reporter, now):
                self._not_before = now + PAUSE_S

    def _write(self, reporter: Reporter, now: float) -> bool:
        key, records = reporter.outbox.producer, []
        if reporter.opening is not None and key not in self._reporters:
            records.append(encode(key, reporter.opening))
            if not reporter.opening.only_creates:
                reporter.assume_running()
        batch = None if reporter.opening is not None and reporter.opening.only_creates else reporter.batch(now)
        if batch is not None:
            records.append(encode(key, batch))
        if records and not self._spool.append(records):
            return False
        if self._own is None and self._spool.own is not None:
            self._own = SpoolFileSender(self._spool.own, self._carrier, self._reporters, self._opened)
        if key not in self._reporters and reporter.opening is None and reporter.outbox.stored:
            self._unasked[key] = reporter
        self._reporters[key] = reporter
        if reporter.opening is not None and reporter.opening.only_creates:
            reporter.opened(WorkerView())
        if batch is not None:
            reporter.spooled()
        return True

    def send_own(self) -> None:
        """Send what is in the own file, which is older than what this process has in memory."""
        own = self._own
        if own is None or own.send_at > time.monotonic():
            return
        own.begin()
        self._refill(own)
        if own.send():
            self._own = None
            self._spool.drop_own()
        for key, reporter in list(self._reporters.items()):
            if not own.holds(reporter.operation):
                reporter.let_go_of_sent()
                del self._reporters[key]

    def _refill(self, own: SpoolFileSender) -> None:
        """Send again what Redis has lost of what it had stored before: what is in the spool follows it."""
        asked = {key: reporter for key, reporter in self._unasked.items() if not own.holds(reporter.operation)}
        while asked:
            group = dict(islice(asked.items(), MAX_PUBLISHES))
            answers = self._carrier.publish([reporter.plain_question() for reporter in group.values()])
            raise_away(answers)
            for (key, reporter), answer in zip(group.items(), answers, strict=True):
                del asked[key]
                try:
                    if isinstance(answer, CallRejected):
                        raise answer
                    gap = self._opened_again(own, key, reporter, answer) if isinstance(answer, NotFound) else answer
                except CallRejected as error:
                    own.hold(reporter.operation, error)
                    continue
                if isinstance(gap, Gap):
                    refill, publishes = reporter.take_lost(gap.last)
                    log_refill(reporter, refill)
                    self._again[key] = deque(publishes)
                del self._unasked[key]
        for key, waiting in list(self._again.items()):
            self._send_again(own, key, waiting)
            if not waiting:
                del self._again[key]

    def _send_again(self, own: SpoolFileSender, key: str, waiting: deque[Publish]) -> None:
        while waiting and not own.holds(waiting[0].operation):
            answers = self._carrier.publish([own.resolved(key, waiting[0]) or waiting[0]])
            raise_away(answers)
            (answer,) = answers
            if isinstance(answer, CallRejected):
                own.hold(waiting[0].operation, answer)
                return
            if isinstance(answer, BrokerError):
                log_drop(waiting[0].operation, answer)
            waiting.popleft()

    def _opened_again(self, own: SpoolFileSender, key: str, reporter: Reporter, rejection: NotFound) -> Gap | None:
        """Open an operation that Redis has lost. Return that all of it is lost; None if it can't be opened."""
        opening = reporter.how_to_open_again(rejection)
        if opening is None or opening.new is None:
            return None
        try:
            state = open_again(self._carrier, opening, reporter.attempt)
        except AWAY:
            raise
        except (BrokerError, Cancelled):
            return None  # then its publishes are rejected, which is told
        own.states[key] = state
        reporter.found_again(state)
        return Gap("the operation is new")

    def send_left(self) -> None:
        """Send a part of what dead processes left: it must not delay what lives."""
        now = time.monotonic()
        left = next((each for each in self._left if each.send_at <= now), None)
        if left is None:
            return
        try:
            left.begin()
            if not left.send(MAX_PUBLISHES):
                return
            left.file.remove()
            logger.info("what a process that ended had left in the spool is sent")
        except BrokerError:
            raise
        except Exception as error:  # whatever is in the file, it must not keep back what lives
            logger.exception("a spool file can't be sent; it is kept as %s: %r", left.file.set_aside(), error)
        self._left.remove(left)

    def take_left(self) -> None:
        """Look for the files of dead processes."""
        self._left += [SpoolFileSender(file, self._carrier) for file in self._spool.take_left()]

    def after_fork(self) -> None:
        """Restart in a forked child: the files belong to the parent."""
        self._spool.after_fork()
        for left in self._left:
            left.file.close()
