"""taskiq: every task of a broker is an operation.

    from taskiq_redis import RedisStreamBroker
    import progress_workers
    from progress_workers.queues.taskiq import ProgressMiddleware

    broker = RedisStreamBroker("redis://localhost/1").with_middlewares(ProgressMiddleware())

    @broker.task
    async def import_rows(rows: list[str]) -> None:
        for row in progress_workers.track(rows):
            ...

`task = await import_rows.kiq(rows)` can be followed as `task.task_id` at once. Which Redis the progress goes to says
`PROGRESS_REDIS_URL`. What to say of an operation beside its kind, the task's name, is said by labels, which are texts:
`progress_kind`, `progress_title`, `progress_owner` and `progress_tags` (with commas between them), where the task is
declared or enqueued; `progress=False` is for a task that is not to be reported:

    @broker.task(progress_kind="import", progress_tags="nightly,eu")
    async def import_rows(rows): ...

    await import_rows.kicker().with_labels(progress_title="Import of May", progress_owner="alice").kiq(rows)

    @broker.task(progress=False)
    async def heartbeat(): ...

In a coroutine `progress_workers.current()` is an `AsyncOperation`, in a plain function, which runs in a thread, an
`Operation`.

**Retries** (`SimpleRetryMiddleware`, `SmartRetryMiddleware`, `context.requeue()`), and messages that are delivered
again because their worker died, are further attempts at the same operation.

**Cancelling.** An operation that is cancelled cancels its coroutine, whose result is the error
`progress_workers.Cancelled`; it is not retried. A plain function stops where it looks:
`progress_workers.current().raise_if_cancelled()`. taskiq itself can't revoke a task.

**Limits.** With a pool of processes (`--use-process-pool`) plain functions are shown as running and how they ended, but
can't report from within, nor be kept from running. Should another middleware's `pre_execute` fail, a task that has
begun is ended by the broker once its lease has lapsed: add this middleware last.
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
from progress_workers.base import Reporting
from progress_workers.current import enter, leave
from progress_workers.errors import Cancelled
from progress_workers.null import NoOperation
from progress_workers.operation import Operation
from progress_workers.queues._runs import Words, announce, begin, seconds, stops, succeed, worded
from progress_workers.values import text

__all__ = ["ProgressMiddleware"]

_REQUEUED = "X-Taskiq-requeue"
"""The label in which taskiq counts `context.requeue()`."""


class _Run:
    """A message while its task works on it."""

    def __init__(self, op: AsyncOperation | Operation | NoOperation, message: TaskiqMessage) -> None:
        self.op, self.task = op, message.task_id
        self.error: BaseException | None = None
        self.retry_in_s: float | None = None
        """When it was enqueued again under its id: how much later it follows, in seconds."""
        self.requeued = message.labels.get(_REQUEUED)
        enter(op)
        # For the middleware that retries, wherever it stands: what was stopped is not tried again.
        op.on_cancel(lambda _: message.labels.update(retry_on_error=False))

    def tell(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Say how it went, now that it is known whether it is retried."""
        error, again = self.error, self.retry_in_s
        if message.labels.get(_REQUEUED) != self.requeued:
            again = 0
        elif again is None and isinstance(result.error, NoResultError) and not isinstance(error, NoResultError):
            again = seconds(message.labels.get("delay"))  # a schedule source has it: it is enqueued later
        if error is not None and stops(self.op, error):
            self.op.fail(error)
        elif again is not None:
            self.op.retry_in(again, error)
        elif error is None or isinstance(error, NoResultError):
            succeed(self.op, result.return_value)
        else:
            self.op.fail(error)


class ProgressMiddleware(TaskiqMiddleware):
    """Reports the tasks of a broker: for both who enqueues them and the worker."""

    async def post_send(self, message: TaskiqMessage) -> None:
        """Create the operation, or note that it goes on."""
        run, words = _run.get(), _words(message)
        if run is not None and run.task == message.task_id:
            run.retry_in_s = seconds(message.labels.get("delay"))
        elif words is not None and not seconds(message.labels.get("_retries")):
            await asyncio.to_thread(announce, message.task_id, words)

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Begin an attempt."""
        words, task = _words(message), self.broker.find_task(message.task_name)
        if words is None or task is None:
            return message
        plain = not inspect.iscoroutinefunction(task.original_func)
        try:
            op: AsyncOperation | Operation | NoOperation
            if plain:
                op = await asyncio.to_thread(begin, Operation, message.task_id, words)
            else:
                op = await asyncio.to_thread(begin, AsyncOperation, message.task_id, words)
        except Cancelled as error:
            _working.set(error)
        else:
            _run.set(_Run(op, message))
            _working.set(op)
        # A plain one is left as it is while it may run: another process would have to be sent what takes its place.
        if not plain or isinstance(_working.get(), Cancelled):
            task.original_func = _guarded(task.original_func)
        return message

    async def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:
        """Note what went wrong: the result tells it no more if the task is retried."""
        run = _run.get()
        if run is not None:
            run.error = exception

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """End the operation, or keep it for the next attempt."""
        run = _run.get()
        if run is None:
            return
        _run.set(None)
        leave(run.op)
        run.tell(message, result)
        if isinstance(run.op, AsyncOperation):
            await run.op.flush()
        else:
            await asyncio.to_thread(run.op.flush)


_run: ContextVar[_Run | None] = ContextVar("progress_taskiq_run", default=None)
_working: ContextVar[Reporting | Cancelled | None] = ContextVar("progress_taskiq", default=None)
"""What the task that is about to run reports to, or why it must not run; None where a task is called directly."""


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a task's function as one that does not run if it must not, and is cancelled with its operation."""
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
    """A plain function that does not run if it must not. Unlike a closure it can be sent to another process."""

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


def _taken() -> Reporting | None:
    """Return what the task reports to, once: a task that it calls directly is a part of it."""
    working = _working.get()
    _working.set(None)
    if isinstance(working, Cancelled):
        raise working
    return working


def _words(message: TaskiqMessage) -> Words | None:
    labels = message.labels
    if text(labels.get("progress")).lower() == "false":
        return None
    given: dict[str, Any] = {
        name: labels[f"progress_{name}"] for name in ("kind", "title", "owner") if f"progress_{name}" in labels
    }
    tags = [tag.strip() for tag in text(labels.get("progress_tags", "")).split(",") if tag.strip()]
    return worded(message.task_name, given | ({"tags": tags} if tags else {}))
