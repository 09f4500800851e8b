"""The common part of the adapters: a task is an operation, each run is an attempt, and reporting never disturbs it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TypeVar

from progress_broker.errors import BrokerError, Fenced, Gone, NotFound, OperationEnded, OperationExists
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish
from progress_broker.settings import load_settings
from progress_workers.async_operation import AsyncOperation
from progress_workers.base import MAX_DELAY_S, BaseOperation
from progress_workers.core.encoding import room
from progress_workers.core.outgoing.backlog import Line
from progress_workers.errors import Cancelled
from progress_workers.lifecycle import start
from progress_workers.lifecycle.create import create_pending
from progress_workers.null import NULL_OPERATION, NullOperation
from progress_workers.operation import Operation
from progress_workers.options import Description
from progress_workers.transport.registry import link_to
from progress_workers.values import attempt, label, number, operation_id, text

__all__ = [
    "LOST",
    "OperationOptions",
    "begin",
    "create_for_task",
    "end_from_outside",
    "end_of",
    "force_stop_after",
    "hand_over",
    "keep_for_retry",
    "leave",
    "leave_async",
    "merge_options",
    "operation_id",
    "outside_end",
    "parent_of",
    "seconds",
    "stops",
    "succeed",
]

logger = logging.getLogger(__name__)

Shell = TypeVar("Shell", Operation, AsyncOperation)

LOST = (Fenced, OperationEnded, NotFound, Gone)
"""The errors that mean: this run may no longer report its operation."""
_CLOCKS_S = 60.0
"""How far the clocks of two machines may differ, in seconds."""


class OperationOptions(Description, total=False):
    """The options of a task's operation, set where the task is declared or enqueued. Its id is the task's id."""

    kind: str
    """The kind of work; by default the task's name."""
    parent: str | None


def merge_options(kind: str, *layers: object) -> OperationOptions | None:
    """Merge the options of a task; later ones override earlier ones. Return None if one of them is False."""
    fields: OperationOptions = {"kind": label(kind)}
    for options in layers:
        if options is False:
            return None
        if isinstance(options, dict):  # otherwise the application uses the name for something else
            fields.update({**options})  # type: ignore[typeddict-item]
    return fields


def create_for_task(task: str, fields: OperationOptions) -> None:
    """Create the pending operation of a task that was enqueued."""
    try:
        create_pending(**fields, id=operation_id(task))
    except OperationExists:
        logger.debug("the operation of task %s already exists, with other options", task)
    except Exception as error:  # whatever the error is, the task must be enqueued
        logger.warning("task %s was enqueued, but its operation could not be created as pending: %s", task, error)


def begin(shell: type[Shell], task: str, fields: OperationOptions, enqueued_at: float = 0) -> Shell | NullOperation:
    """Begin the next attempt at a task's operation. If it can't be reported, return the null operation.

    Raises `Cancelled` if the operation was cancelled before: then the task must not run. Where queues reuse ids,
    `enqueued_at` (seconds since 1970) is the time of enqueueing: a cancel before that time was meant for another task.
    """
    operation = operation_id(task)
    try:
        opened = start.adopt(**fields, id=operation, cancel_counts_from_s=enqueued_at - _CLOCKS_S)
    except Cancelled:
        raise
    except Exception as error:  # whatever the error is, the task must run
        logger.warning("task %s runs, but its progress is not reported: %s", task, error)
        return NULL_OPERATION
    opened = opened._replace(end_on_sigterm=False)  # the queue knows what becomes of the task
    op = shell(opened)
    if op.cancelled:
        with Operation(opened) as cancelled:
            cancelled.raise_if_cancelled()
    return op


def stops(op: BaseOperation, error: BaseException) -> bool:
    """Return whether an exception that left a task means that it was stopped, and not that it failed."""
    return isinstance(error, Cancelled) or (op.cancelled and isinstance(error, LOST))


def seconds(value: object) -> float:
    """Return a queue's delay in seconds; 0 if the value is not a number, such as a label with another meaning."""
    found = number(value)
    if found is None:
        found = attempt(lambda: number(float(value)), otherwise=lambda _: None)  # type: ignore[arg-type] # labels are texts
    return max(0.0, found or 0.0)


def hand_over(op: BaseOperation, to: str) -> None:
    """Leave an operation open, for as long as it takes, because another task goes on with it."""
    if not isinstance(op, NullOperation):
        op._reporter.retry_in(MAX_DELAY_S, Line(f"attempt {op.attempt} was handed over to {to}", "info", None))


def parent_of(op: BaseOperation) -> str | None:
    """Return the id of an operation's parent; None if it has none."""
    return None if isinstance(op, NullOperation) else op._reporter.parent


def end_of(op: BaseOperation) -> NewEvent | None:
    """Return the end of an operation that this process has reported; None if it has not ended."""
    return None if isinstance(op, NullOperation) else op._reporter.outbox.end


def succeed(op: BaseOperation, result: object) -> None:
    """Report that a task succeeded, with its result."""
    try:
        op.succeed(result)
    except Exception:  # the task did its work, so a failed report must not fail it
        logger.exception("the result of operation %s could not be reported", op.id)


def leave(op: Operation | NullOperation) -> None:
    """Leave an operation's block after its end was reported."""
    with _lost_is_logged(op):
        op.__exit__(None, None, None)


async def leave_async(op: AsyncOperation | NullOperation) -> None:
    """Leave an operation's block after its end was reported."""
    with _lost_is_logged(op):
        await op.__aexit__(None, None, None)


def outside_end(status: Status, kind: str, message: str) -> NewEvent:
    """Return the end of an operation that is ended from outside its worker; `kind` is the type of the error."""
    settings = load_settings()
    said = {"type": text(kind, 256), "message": text(message, room(settings.max_event_bytes))}
    return encode("end", {"status": status, "error": said}, settings)


def end_from_outside(task: str, status: Status, kind: str, message: str) -> None:
    """End a task's operation from outside its worker; `kind` is the type of the error."""
    try:
        settings, operation = load_settings(), operation_id(task)
        entry = outside_end(status, kind, message)
        link_to(settings).publish(Publish(operation, [entry], as_observer=True))
    except LOST:
        logger.debug("the operation of task %s has already ended or no longer exists", task)
    except Exception as error:  # whatever the error is, the queue must continue
        logger.warning("the operation of task %s could not be ended as %s: %s", task, status, error)


def keep_for_retry(task: str, delay_s: float, error: str) -> None:
    """Keep a task's operation open for its next attempt, after its worker died."""
    try:
        with Operation.attach(operation_id(task)) as op:
            op.retry_in(delay_s, error)
    except Exception as fault:  # whatever the error is, the queue must continue
        logger.warning("the operation of task %s could not be kept open for its next attempt: %s", task, fault)


@contextmanager
def force_stop_after(op: BaseOperation, after_s: float | None, stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` once if the block still runs `after_s` seconds after the operation was cancelled; None: never."""
    left, leaving = False, Lock()
    timers: list[Timer] = []

    def insist() -> None:
        with leaving:
            if not left:
                stop()

    def on_cancel(error: Exception) -> None:
        # If a later attempt took over, that attempt's task has the same id, and `stop` would stop it.
        if isinstance(error, Cancelled) and after_s is not None:
            timers.append(Timer(after_s, insist))
            timers[0].daemon = True
            timers[0].start()

    forget = op.on_cancel(on_cancel)
    try:
        yield
    finally:
        with leaving:
            left = True
        forget()
        for timer in timers:
            timer.cancel()


@contextmanager
def _lost_is_logged(op: BaseOperation) -> Iterator[None]:
    try:
        yield
    except BrokerError as error:
        logger.warning(
            "this run of the task stopped reporting operation %s, because %s; the task itself is not affected",
            op.id,
            error,
        )
