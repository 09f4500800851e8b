"""Sends what is in one spool file. An operation that can't be sent now is held back, and delays no other."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from types import MappingProxyType

from progress_broker.errors import BrokerError, Conflict, OperationEnded, StorageFull, StorageUnavailable, TooLarge
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish, Published, WorkerView
from progress_broker.runtime.backoff import Backoff
from progress_workers.core.opening import Opening
from progress_workers.core.reporter import Reporter
from progress_workers.errors import Cancelled
from progress_workers.spool.file import SpoolFile
from progress_workers.spool.unsent import Record, Unsent
from progress_workers.transport.answers import AWAY, apply_answer, give_up, refuse
from progress_workers.transport.carrier import CallRejected, Carrier, ServerAway, delay_s
from progress_workers.transport.opening.operation import open_operation

logger = logging.getLogger(__name__)

MAX_PUBLISHES = 100

_NONE: Mapping[str, Reporter] = MappingProxyType({})
_AS_IT_IS = WorkerView()


class SpoolFileSender:
    """Sends one file: that of this process, whose records are of `reporters`, by their keys; or that of a dead one."""

    def __init__(
        self,
        file: SpoolFile,
        carrier: Carrier,
        reporters: Mapping[str, Reporter] = _NONE,
        opened: Callable[[Reporter], None] | None = None,
    ) -> None:
        self.file = file
        self.states: dict[str, WorkerView | None] = {}
        """What was found for each opening that was sent, by its key; None: its publishes must not be sent."""
        self._unsent = Unsent(file)
        self._carrier, self._reporters, self._opened = carrier, reporters, opened
        self._refused: set[str] = set()
        """The operations that another process left, and that do not accept their publishes."""
        self._told: set[str] = set()
        self._backoff = Backoff()
        self._held_by: BrokerError | None = None
        self._not_before = -inf
        self._retries = True

    @property
    def send_at(self) -> float:
        """When there is something to try to send."""
        return self._not_before if self._unsent.exhausted else -inf

    def holds(self, operation: str) -> bool:
        """Whether an operation is held back, so that nothing newer of it may be sent."""
        return operation in self._unsent.held

    def hold(self, operation: str, error: CallRejected, record: Record | None = None) -> None:
        """Hold an operation back for a while, as it, or its server, can't take its reports now."""
        self._held_by = error
        if operation not in self._told and not isinstance(error, ServerAway):  # that is told once for all
            self._told.add(operation)
            logger.warning(
                "%s rejected spooled reports of operation %s, which are sent again later: %s",
                self._carrier.peer,
                operation,
                error.detail,
            )
        self._unsent.hold(operation, record)

    def begin(self) -> None:
        """Try again what is held back, if it is time."""
        self._retries = not self._unsent.held or time.monotonic() >= self._not_before
        if self._retries:
            self._unsent.try_again()

    def send(self, most: float = inf) -> bool:
        """Send up to about `most` records, after `begin`. Return whether everything is sent.

        Raises what a carrier raises. Then what was not answered is sent again.
        """
        try:
            self._send_records(most)
        finally:
            self._unsent.put_back()
        if self._retries:
            if self._unsent.held:
                self._not_before = time.monotonic() + delay_s(self._backoff, self._held_by)
            else:
                self._backoff.succeeded()
                self._not_before = -inf
        if self._unsent.held or not self._unsent.exhausted:
            return False
        if self._unsent.damaged:
            at = min(self.file.sent, self.file.size)
            logger.warning("a spool file is damaged at byte %d: what follows is dropped", at)
        return True

    def _send_records(self, most: float) -> None:
        group: list[Record] = []
        count = 0.0
        while count < most and (record := self._unsent.take()) is not None:
            count += 1
            opening = record.content if isinstance(record.content, Opening) else None
            full = len(group) == MAX_PUBLISHES
            if full or opening is not None or any(sent.operation == record.operation for sent in group):
                self._send(group)
                group = []
                if self.holds(record.operation):
                    self._unsent.hold(record.operation, record)
                    continue
            if opening is None:
                group.append(record)
            else:
                self._open(record, opening)
        self._send(group)

    def _open(self, record: Record, opening: Opening) -> None:
        key, reporter = record.key, self._reporters.get(record.key)
        try:
            state = open_operation(self._carrier, opening if reporter else _modest(opening))
            if reporter is None and opening.new_attempt and state.status is not Status.PENDING:
                raise OperationEnded(f"another attempt at operation {opening.operation} may be running")
        except CallRejected as error:
            self.hold(opening.operation, error, record)
            return
        except AWAY:
            raise
        except (BrokerError, Cancelled) as error:
            self.states[key] = None
            if reporter is not None:
                refuse(reporter, error)
            else:
                log_drop(opening.operation, error)
        else:
            self.states[key] = state
            if reporter is not None and not opening.only_creates:
                reporter.opened(state)
                if not reporter.done and self._opened is not None:
                    self._opened(reporter)
        self._unsent.done(record)
        self._unsent.save()

    def _send(self, group: Sequence[Record]) -> None:
        """Send publishes of different operations. If this raises, they are sent again."""
        publishes = [(record, self._publish_of(record)) for record in group]
        sent = [(record, publish) for record, publish in publishes if publish is not None]
        answers = self._carrier.publish([publish for _, publish in sent]) if sent else []
        raise_away(answers)
        for (record, publish), answer in zip(sent, answers, strict=True):
            if isinstance(answer, CallRejected):
                self.hold(record.operation, answer, record)
            else:
                self._answered(record.key, publish, answer)
        for record in group:
            self._unsent.done(record)  # unless it is held
        if group:
            self._unsent.save()

    def _publish_of(self, record: Record) -> Publish | None:
        assert isinstance(record.content, Publish)  # noqa: S101 - the caller opens what is an opening
        return self.resolved(record.key, record.content)

    def resolved(self, key: str, publish: Publish) -> Publish | None:
        """Return a publish with the attempt that its opening has found, or None if it must not be sent."""
        if publish.operation in self._refused:
            return None
        state = self.states.get(key, _AS_IT_IS)
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
            self.states[key] = None
            if isinstance(answer, Conflict | TooLarge):
                apply_answer(reporter, answer, reporter.apply_answer)
            else:
                give_up(reporter, answer)
        else:
            self.states[key] = None
            self._refused.add(publish.operation)
            log_drop(publish.operation, answer)


def raise_away(answers: Iterable[Published | BrokerError]) -> None:
    """Raise an answer that concerns not only one publish."""
    for answer in answers:
        if isinstance(answer, StorageUnavailable | StorageFull) and not isinstance(answer, CallRejected):
            raise answer


def log_drop(operation: str, error: BrokerError | Cancelled) -> None:
    """Log that what was spooled of an operation is not sent."""
    logger.warning("spooled reports of operation %s are dropped: %s", operation, error)


def _modest(opening: Opening) -> Opening:
    """Return how to open what a dead worker left: it must not take over from a worker that lives."""
    return opening._replace(new_attempt=False)
