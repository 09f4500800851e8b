"""taskiq: every task of a broker is an operation.

    from taskiq_redis import RedisStreamBroker
    import progress_workers
    from progress_workers.queues.taskiq import ProgressMiddleware

    broker = RedisStreamBroker("redis://localhost/1").with_middlewares(ProgressMiddleware())

    @broker.task
    async def import_rows(rows: list[str]) -> None:
        for row in progress_workers.track(rows):
            ...

After `task = await import_rows.kiq(rows)`, the operation can be followed as `task.task_id` at once.
`PROGRESS_REDIS_URL` sets which Redis the progress goes to. An operation's kind is the task's name by default. Labels,
which are texts, set this and other options where the task is declared or enqueued: `progress_kind`, `progress_title`,
`progress_owner` and `progress_tags` (separated by commas). `progress=False` turns reporting off:

    @broker.task(progress_kind="import", progress_tags="nightly,eu")
    async def import_rows(rows): ...

    await import_rows.kicker().with_labels(progress_title="Import of May", progress_owner="alice").kiq(rows)

    @broker.task(progress=False)
    async def heartbeat(): ...

In a coroutine, `progress_workers.current()` is an `AsyncOperation`. In a plain function, which runs in a thread, it is
an `Operation`.

**Retries** (`SimpleRetryMiddleware`, `SmartRetryMiddleware`, `context.requeue()`) are further attempts at the same
operation. So are messages that are delivered again because their worker died.

**Cancelling.** Cancelling an operation cancels its coroutine. The task's result is then the error
`progress_workers.Cancelled`, and it is not retried. A plain function stops where it checks:
`progress_workers.current().raise_if_cancelled()`. taskiq itself can't revoke a task.

**Limits.** With a process pool (`--use-process-pool`), the start and the end of plain functions are reported, but they
can't report from inside, and a cancel can't prevent them from running. If the `pre_execute` of a later middleware
fails, the operation of a task that has begun stays open until its lease expires and the broker ends it: so add this
middleware last.
"""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from progress_broker.extras import require

try:
    from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult
    from taskiq.exceptions import NoResultError
except ModuleNotFoundError:
    require("taskiq", __name__)
    raise

from progress_workers.async_operation import AsyncOperation, TaskScope
from progress_workers.base import BaseOperation
from progress_workers.current import enter, leave
from progress_workers.errors import Cancelled
from progress_workers.null import NullOperation
from progress_workers.operation import Operation
from progress_workers.queues._runs import (
    OperationOptions,
    begin,
    create_for_task,
    merge_options,
    seconds,
    stops,
    succeed,
)
from progress_workers.values import text

__all__ = ["ProgressMiddleware"]

_REQUEUED = "X-Taskiq-requeue"
"""The label in which taskiq counts the calls of `context.requeue()`."""


class _Run:
    """A message while its task runs."""

    def __init__(self, op: AsyncOperation | Operation | NullOperation, message: TaskiqMessage) -> None:
        self.op, self.task = op, message.task_id
        self.error: BaseException | None = None
        self.retry_in_s: float | None = None
        """The delay of the retry, in seconds; None if the message was not enqueued again with its id."""
        self.requeued = message.labels.get(_REQUEUED)
        enter(op)
        # This tells the retry middleware, wherever it stands, not to retry a task that was stopped.
        op.on_cancel(lambda _: message.labels.update(retry_on_error=False))

    def report_outcome(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Report how the run ended: only now is it known whether it is retried."""
        error, again = self.error, self.retry_in_s
        if message.labels.get(_REQUEUED) != self.requeued:
            again = 0
        elif again is None and isinstance(result.error, NoResultError) and not isinstance(error, NoResultError):
            again = seconds(message.labels.get("delay"))  # a schedule source holds the message and enqueues it later
        if error is not None and stops(self.op, error):
            self.op.fail(error)
        elif again is not None:
            self.op.retry_in(again, error)
        elif error is None or isinstance(error, NoResultError):
            succeed(self.op, result.return_value)
        else:
            self.op.fail(error)


class ProgressMiddleware(TaskiqMiddleware):
    """Reports the tasks of a broker, both where they are enqueued and in the worker."""

    async def post_send(self, message: TaskiqMessage) -> None:
        """Create the operation; for a retry, note that it continues."""
        run, operation_options = _run.get(), _operation_options(message)
        if run is not None and run.task == message.task_id:
            run.retry_in_s = seconds(message.labels.get("delay"))
        elif operation_options is not None and not seconds(message.labels.get("_retries")):
            await asyncio.to_thread(create_for_task, message.task_id, operation_options)

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Begin an attempt."""
        operation_options, task = _operation_options(message), self.broker.find_task(message.task_name)
        if operation_options is None or task is None:
            return message
        plain = not inspect.iscoroutinefunction(task.original_func)
        try:
            op: AsyncOperation | Operation | NullOperation
            if plain:
                op = await asyncio.to_thread(begin, Operation, message.task_id, operation_options)
            else:
                op = await asyncio.to_thread(begin, AsyncOperation, message.task_id, operation_options)
        except Cancelled as error:
            _working.set(error)
        else:
            _run.set(_Run(op, message))
            _working.set(op)
        # A plain function that may run stays unchanged: a wrapper would have to be sent to the pool's processes.
        if not plain or isinstance(_working.get(), Cancelled):
            task.original_func = _guarded(task.original_func)
        return message

    async def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:
        """Keep the exception: if the task is retried, the result no longer holds it."""
        run = _run.get()
        if run is not None:
            run.error = exception

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """End the operation, or keep it open for the next attempt."""
        run = _run.get()
        if run is None:
            return
        _run.set(None)
        leave(run.op)
        run.report_outcome(message, result)
        if isinstance(run.op, AsyncOperation):
            await run.op.flush()
        else:
            await asyncio.to_thread(run.op.flush)


_run: ContextVar[_Run | None] = ContextVar("progress_taskiq_run", default=None)
_working: ContextVar[BaseOperation | Cancelled | None] = ContextVar("progress_taskiq", default=None)
"""What the task that starts next reports to, or why it must not run; None for a task that is called directly."""


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a task's function: it does not run if its operation was cancelled, and is cancelled with its operation."""
    if isinstance(function, _Guarded) or hasattr(function, "guarded"):
        return function
    if not inspect.iscoroutinefunction(function):
        return _Guarded(function)

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        return await _scoped(functools.partial(function, *args, **kwargs))

    guarded.guarded = True  # type: ignore[attr-defined]
    return guarded


class _Guarded:
    """A plain function that does not run if it was cancelled. Unlike a closure, it can be sent to another process."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _taken()
        return self._function(*args, **kwargs)


async def _scoped(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    op = _taken()
    if op is None:
        return await work()
    scope = TaskScope(op.on_cancel)
    try:
        result = await work()
    except BaseException as error:
        stopped = scope.leave(error)
        if stopped is not None:
            raise stopped from error
        raise
    scope.leave(None)
    return result


def _taken() -> BaseOperation | None:
    """Return what the task reports to, only once: a task that it calls directly belongs to the same operation."""
    working = _working.get()
    _working.set(None)
    if isinstance(working, Cancelled):
        raise working
    return working


def _operation_options(message: TaskiqMessage) -> OperationOptions | None:
    labels = message.labels
    if text(labels.get("progress")).lower() == "false":
        return None
    given: dict[str, Any] = {
        name: labels[f"progress_{name}"] for name in ("kind", "title", "owner") if f"progress_{name}" in labels
    }
    tags = [tag.strip() for tag in text(labels.get("progress_tags", "")).split(",") if tag.strip()]
    return merge_options(message.task_name, given | ({"tags": tags} if tags else {}))
