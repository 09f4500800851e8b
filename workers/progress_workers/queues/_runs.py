"""What the adapters share: a task is an operation, each run of it an attempt, and reporting never gets in its way."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TypeVar

from progress_broker.errors import BrokerError, Fenced, Gone, NotFound, OperationEnded, OperationExists
from progress_broker.model.entry import encode
from progress_broker.model.operation import Status
from progress_broker.operations.commands import publish_call, read_answer
from progress_broker.settings import load_settings
from progress_workers.async_operation import AsyncOperation
from progress_workers.base import Reporting
from progress_workers.core.encoding import room
from progress_workers.errors import Cancelled
from progress_workers.lifecycle import start
from progress_workers.lifecycle.create import create_pending
from progress_workers.lifecycle.start import Opened
from progress_workers.lifecycle.state import cancelled_at_s
from progress_workers.null import NOTHING, NoOperation
from progress_workers.operation import Operation
from progress_workers.options import Description
from progress_workers.transport.registry import link_to
from progress_workers.values import attempt, label, number, operation_id, text

__all__ = [
    "LOST",
    "Words",
    "announce",
    "begin",
    "conclude",
    "hold",
    "last_resort",
    "leave",
    "leave_async",
    "operation_id",
    "seconds",
    "stops",
    "succeed",
    "worded",
]

logger = logging.getLogger(__name__)

Shell = TypeVar("Shell", Operation, AsyncOperation)

LOST = (Fenced, OperationEnded, NotFound, Gone)
"""Why an operation is no longer this run's to report."""
_CLOCKS_S = 60.0
"""How far the clocks of two machines may be apart."""


class Words(Description, total=False):
    """What can be said of a task's operation where the task is declared, or enqueued; its id is the task's."""

    kind: str
    """What sort of work it is; by default the task's name."""
    parent: str | None


def worded(kind: str, *given: object) -> Words | None:
    """Return what to say of a task, the later of what was `given` winning; None if one of them is False."""
    words: Words = {"kind": label(kind)}
    for each in given:
        if each is False:
            return None
        if isinstance(each, dict):  # else the name is used for something else there
            words.update({**each})  # type: ignore[typeddict-item]
    return words


def announce(task: str, words: Words) -> None:
    """Create the operation of a task that was enqueued, as pending."""
    try:
        create_pending(**words, id=operation_id(task))
    except OperationExists:
        logger.debug("the operation of task %s was created before, in other words", task)
    except Exception as error:  # whatever it is, the task is enqueued
        logger.warning("task %s is enqueued, but is not shown as pending: %s", task, error)


def begin(shell: type[Shell], task: str, words: Words, enqueued_at: float = 0) -> Shell | NoOperation:
    """Begin the next attempt at a task's operation; one that takes all and does nothing if it can't be reported.

    Raises `Cancelled` if it was cancelled before: then the task must not run. Where ids are used again, `enqueued_at`,
    in seconds since 1970, tells what was cancelled before it was enqueued: that was another task.
    """
    operation = operation_id(task)
    try:
        opened = _opened(operation, words)
    except Exception as error:  # whatever it is, the task runs
        if isinstance(error, OperationEnded) and _was_cancelled(operation, enqueued_at):
            raise Cancelled(operation, "before this run began") from None
        logger.warning("task %s runs without being reported: %s", task, error)
        return NOTHING
    op = shell(opened)
    if op.cancelled:
        with Operation(opened) as told:
            told.raise_if_cancelled()
    return op


def stops(op: Reporting, error: BaseException) -> bool:
    """Return whether an exception that left a task means that it was stopped, not that it went wrong."""
    return isinstance(error, Cancelled) or (op.cancelled and isinstance(error, LOST))


def seconds(value: object) -> float:
    """Return a delay that a queue was told, in seconds; 0 for what is not a number, such as a label of another use."""
    found = number(value)
    if found is None:
        found = attempt(lambda: number(float(value)), otherwise=lambda _: None)  # type: ignore[arg-type] # labels are texts
    return max(0.0, found or 0.0)


def succeed(op: Reporting, result: object) -> None:
    """Say that a task succeeded, with its result as far as that can be shown."""
    try:
        op.succeed(result)
    except Exception:  # the task has done its work, whatever is wrong with the report of it
        logger.exception("operation %s can't be told its result", op.id)


def leave(op: Operation | NoOperation) -> None:
    """Leave an operation that was entered, once it was said how it ended."""
    with _lost_is_logged(op):
        op.__exit__(None, None, None)


async def leave_async(op: AsyncOperation | NoOperation) -> None:
    """Leave an operation that was entered, once it was said how it ended."""
    with _lost_is_logged(op):
        await op.__aexit__(None, None, None)


def conclude(task: str, status: Status, kind: str, message: str) -> None:
    """End a task's operation from elsewhere than where it is worked on; `kind` is the error's type."""
    try:
        settings, operation = load_settings(), operation_id(task)
        link = link_to(settings)
        said = {"type": text(kind, 256), "message": text(message, room(settings))}
        entry = encode("end", {"status": status, "error": said}, settings)
        keys = link.keyspace().operation(operation)
        read_answer(link.run(publish_call(operation, keys, [entry], as_observer=True)))
    except LOST:
        logger.debug("the operation of task %s has ended already, or is no more", task)
    except Exception as error:  # whatever it is, the queue goes on
        logger.warning("the operation of task %s can't be ended as %s: %s", task, status, error)


def hold(task: str, delay_s: float, error: str) -> None:
    """Have a task's operation wait for its next attempt, though the worker that was on it is gone."""
    try:
        with Operation.attach(operation_id(task)) as op:
            op.retry_in(delay_s, error)
    except Exception as fault:  # whatever it is, the queue goes on
        logger.warning("the operation of task %s can't be held for its next attempt: %s", task, fault)


@contextmanager
def last_resort(op: Reporting, after_s: float | None, stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop`, once, if the block still runs `after_s` seconds after the operation was cancelled; None: never."""
    left, leaving = False, Lock()
    timers: list[Timer] = []

    def insist() -> None:
        with leaving:
            if not left:
                stop()

    def asked(error: Exception) -> None:
        # One that lost its operation to a later attempt has the id of that one's task: it must not be stopped.
        if isinstance(error, Cancelled) and after_s is not None:
            timers.append(Timer(after_s, insist))
            timers[0].daemon = True
            timers[0].start()

    forget = op.on_cancel(asked)
    try:
        yield
    finally:
        with leaving:
            left = True
        forget()
        for timer in timers:
            timer.cancel()


def _opened(operation: str, words: Words) -> Opened:
    try:
        return start.attach(operation, new_attempt=True)
    except NotFound:
        try:
            return start.start(**words, id=operation, new_attempt=True)
        except OperationExists:  # created meanwhile, by who enqueued it, in other words
            return start.attach(operation, new_attempt=True)


def _was_cancelled(operation: str, after: float) -> bool:
    try:
        cancelled_at = cancelled_at_s(link_to(load_settings()), operation)
    except BrokerError:
        return False
    return cancelled_at is not None and cancelled_at >= after - _CLOCKS_S


@contextmanager
def _lost_is_logged(op: Reporting) -> Iterator[None]:
    try:
        yield
    except BrokerError as error:
        logger.warning("operation %s was no longer this run's to report: %s", op.id, error)
