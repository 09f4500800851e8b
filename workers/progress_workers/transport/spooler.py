"""Moves reports that can't be sent to the spool, and sends what is in the spool."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from math import inf

from progress_broker.errors import (
    BrokerError,
    Conflict,
    Gap,
    NotFound,
    OperationEnded,
    StorageFull,
    StorageUnavailable,
    TooLarge,
)
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish, Published, WorkerView
from progress_workers.core.opening import Opening
from progress_workers.core.reporter import Reporter
from progress_workers.errors import Cancelled
from progress_workers.spool.file import SpoolFile
from progress_workers.spool.records import decode, encode
from progress_workers.spool.spool import Spool
from progress_workers.transport.answers import AWAY, apply_answer, give_up, log_refill, refuse
from progress_workers.transport.carrier import CallRejected, Carrier
from progress_workers.transport.opening.operation import open_again, open_operation

logger = logging.getLogger(__name__)

MAX_PUBLISHES = 100
PAUSE_S = 1.0
"""How long to wait before the next try, after a record could not be written."""

_Records = list[tuple[str, Publish, int]]
"""Publishes of different operations, each with its key and the position after it."""


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
        self._states: dict[str, WorkerView | None] = {}
        """What was found for each opening that was sent; None: its publishes must not be sent."""
        self._refused: set[str] = set()
        """The operations that another process left, and that do not accept their publishes."""
        self._not_before = -inf
        spool.take_left()

    @property
    def waits(self) -> bool:
        """Whether there is something to send."""
        return self._spool.own is not None or bool(self._spool.left)

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
        if key not in self._reporters and reporter.opening is None and reporter.outbox.stored:
            self._unasked[key] = reporter
        self._reporters[key] = reporter
        if reporter.opening is not None and reporter.opening.only_creates:
            reporter.opened(WorkerView())
        if batch is not None:
            reporter.spooled()
        return True

    def has_opening(self, reporter: Reporter) -> bool:
        """Whether the opening of a reporter is in the spool."""
        return reporter.opening is not None and reporter.outbox.producer in self._reporters

    def send_own(self) -> None:
        """Send everything in the own file, which is older than what this process has in memory."""
        if self._spool.own is not None:
            self._refill()
            self._send_file(self._spool.own, inf)
            self._spool.drop_own()
            for reporter in self._reporters.values():
                reporter.let_go_of_sent()
            self._reporters.clear()
            self._states.clear()

    def _refill(self) -> None:
        """Send again what Redis has lost of what it had stored before: what is in the spool follows it."""
        while self._unasked:
            group = dict(islice(self._unasked.items(), MAX_PUBLISHES))
            answers = self._carrier.publish([reporter.plain_question() for reporter in group.values()])
            _raise_away(answers)
            for (key, reporter), answer in zip(group.items(), answers, strict=True):
                gap = self._opened_again(key, reporter, answer) if isinstance(answer, NotFound) else answer
                if isinstance(gap, Gap):
                    refill, publishes = reporter.take_lost(gap.last)
                    log_refill(reporter, refill)
                    self._again[key] = deque(publishes)
                del self._unasked[key]
        while self._again:
            key, waiting = next(iter(self._again.items()))
            while waiting:
                answers = self._carrier.publish([self._resolved(key, waiting[0]) or waiting[0]])
                _raise_away(answers)
                if isinstance(answers[0], BrokerError):
                    _log_drop(waiting[0].operation, answers[0])
                waiting.popleft()
            del self._again[key]

    def _opened_again(self, key: str, reporter: Reporter, rejection: NotFound) -> Gap | None:
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
        self._states[key] = state
        reporter.found_again(state)
        return Gap("the operation is new")

    def send_left(self) -> None:
        """Send a part of what dead processes left: it must not delay what lives."""
        if self._spool.left:
            file = self._spool.left[0]
            try:
                if not self._send_file(file, MAX_PUBLISHES):
                    return
                file.remove()
                logger.info("what a process that ended had left in the spool is sent")
            except BrokerError:
                raise
            except Exception as error:  # whatever is in the file, it must not keep back what lives
                logger.exception("a spool file can't be sent; it is kept as %s: %r", file.set_aside(), error)
            self._spool.left.remove(file)
            self._states.clear()
            self._refused.clear()

    def take_left(self) -> None:
        """Look again for the files of dead processes."""
        self._spool.take_left()

    def after_fork(self) -> None:
        """Restart in a forked child: the files belong to the parent."""
        self._spool.after_fork()

    def _send_file(self, file: SpoolFile, most: float) -> bool:
        """Send up to about `most` records of a file. Return whether everything is sent."""
        group: _Records = []
        count = 0
        for data, position in file.records():
            count += 1
            if count > most:
                self._send(file, group)
                return False
            try:
                key, record = decode(data)
            except (ValueError, TypeError, LookupError, AttributeError):
                continue  # the checksum is right, so another program wrote it
            full = len(group) == MAX_PUBLISHES
            if full or isinstance(record, Opening) or any(sent.operation == record.operation for _, sent, _ in group):
                self._send(file, group)
                group = []
            if isinstance(record, Opening):
                self._open(key, record)
                file.sent = position
            else:
                group.append((key, record, position))
        self._send(file, group)
        if file.unsent:
            at = min(file.sent, file.size)
            logger.warning("a spool file is damaged at byte %d: what follows is dropped", at)
        return True

    def _open(self, key: str, opening: Opening) -> None:
        reporter = self._reporters.get(key)
        try:
            state = open_operation(self._carrier, opening if reporter else _modest(opening))
            if reporter is None and opening.new_attempt and state.status is not Status.PENDING:
                raise OperationEnded(f"another attempt at operation {opening.operation} may be running")
        except AWAY:
            raise
        except (BrokerError, Cancelled) as error:
            self._states[key] = None
            if reporter is not None:
                refuse(reporter, error)
            else:
                _log_drop(opening.operation, error)
        else:
            self._states[key] = state
            if reporter is not None and not opening.only_creates:
                reporter.opened(state)
                if not reporter.done:
                    self._opened(reporter)

    def _send(self, file: SpoolFile, group: _Records) -> None:
        """Send publishes of different operations. If this raises, they are sent again."""
        resolved = [(key, found) for key, publish, _ in group if (found := self._resolved(key, publish)) is not None]
        if resolved:
            answers = self._carrier.publish([publish for _, publish in resolved])
            _raise_away(answers)
            for (key, publish), answer in zip(resolved, answers, strict=True):
                self._answered(key, publish, answer)
        if group:
            file.sent = group[-1][2]

    def _resolved(self, key: str, publish: Publish) -> Publish | None:
        """Return a publish with the attempt that its opening has found, or None if it must not be sent."""
        if publish.operation in self._refused:
            return None
        state = self._states.get(key, _AS_IT_IS)
        if state is None:
            return None
        if state is _AS_IT_IS:
            return publish
        runs = state.status not in (Status.PENDING, Status.STALLED)
        entries = [entry for entry in publish.entries if not (runs and entry.type == "status")]
        return publish._replace(attempt=state.attempt, created_ms=state.created_ms, entries=entries)

    def _answered(self, key: str, publish: Publish, answer: Published | BrokerError) -> None:
        reporter = self._reporters.get(key)
        if not isinstance(answer, BrokerError):
            if reporter is not None:
                reporter.apply_answer(answer)
        elif reporter is not None and not reporter.done:
            self._states[key] = None
            if isinstance(answer, Conflict | TooLarge):
                apply_answer(reporter, answer, reporter.apply_answer)
            else:
                give_up(reporter, answer)
        else:
            self._states[key] = None
            self._refused.add(publish.operation)
            _log_drop(publish.operation, answer)


def _raise_away(answers: Iterable[Published | BrokerError]) -> None:
    """Raise an answer that concerns not only one publish."""
    for answer in answers:
        if isinstance(answer, StorageUnavailable | StorageFull) and not isinstance(answer, CallRejected):
            raise answer


_AS_IT_IS = WorkerView()


def _modest(opening: Opening) -> Opening:
    """Return how to open what a dead worker left: it must not take over from a worker that lives."""
    return opening._replace(new_attempt=False)


def _log_drop(operation: str, error: BrokerError | Cancelled) -> None:
    logger.warning("spooled reports of operation %s are dropped: %s", operation, error)
