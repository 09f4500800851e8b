"""arq: every job of a worker is an operation.

    from arq.connections import RedisSettings
    import progress_workers
    from progress_workers.queues.arq import create_pool, reported

    async def import_rows(ctx, rows):
        for row in progress_workers.track(rows):
            ...

    @reported
    class WorkerSettings:
        functions = [import_rows]

Where jobs are enqueued, use this module's `create_pool` instead of arq's. In a job, `ctx["redis"]` is such a pool:

    pool = await create_pool(RedisSettings())
    job = await pool.enqueue_job("import_rows", rows, _progress={"title": "Import of May", "owner": "alice"})

The operation's id is the job's id. Characters that an operation's id can't have are escaped (`operation_id`), such as
the colon in a cron job's id. `PROGRESS_REDIS_URL` sets which Redis the progress goes to. The worker's settings can hold
more options for a function's operations. `False` turns reporting off; set it in the settings and where the job is
enqueued:

    @reported
    class WorkerSettings:
        functions = [import_rows, heartbeat]
        progress = {"import_rows": {"kind": "import", "tags": ["nightly"]}, "heartbeat": False}

    await pool.enqueue_job("heartbeat", _progress=False)

**Retries** (`raise Retry(defer=5)`) are further attempts at the same operation. So are jobs that run again because
their worker was stopped or died. arq runs the job of a dead worker again after the longest `job_timeout` plus ten
seconds.

**Cancelling.** Cancelling an operation cancels the job's task, as `job.abort()` does. The job fails with
`progress_workers.Cancelled` and is not retried. `job.abort()` (with `allow_abort_jobs`) ends the operation as
cancelled. For a running job, any way of aborting does this. For a queued job, only the `Job` of this module does it,
which this module's pool returns.

**Which arq.** arq 0.26 to 0.28 declare that they need redis below 6, but progress-broker needs 8.1 or later. An
installer that respects both chooses arq 0.25. arq 0.28 also works, if you make the installer override its declared
requirement.

**Limits.** arq remembers a job's id only as long as the job's result (`keep_result`), but operations are kept longer.
If a job is enqueued with the id of an earlier job, it runs unreported, because the earlier job's operation has ended.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from progress_broker.extras import require

try:
    import arq.connections
    import arq.jobs
    from arq.worker import Function, Retry, RetryJob, func
except ModuleNotFoundError:
    require("arq", __name__)
    raise

from progress_broker.model.operation import Status
from progress_workers.async_operation import AsyncOperation
from progress_workers.errors import Cancelled
from progress_workers.null import NullOperation
from progress_workers.queues._runs import (
    OperationOptions,
    begin,
    create_for_task,
    end_from_outside,
    leave_async,
    merge_options,
    operation_id,
    seconds,
    succeed,
)

__all__ = ["ArqRedis", "Job", "create_pool", "operation_id", "reported"]

Settings = TypeVar("Settings", bound=type)
Hook = Callable[[dict[Any, Any]], Awaitable[None]]
_OUTER, _SINCE = "progress_task", "progress_since"
"""Keys in a job's context: the task that waits for the job's task, and the loop's time just before the job began."""


def reported(settings: Settings) -> Settings:
    """Report the jobs of a worker: a decorator for the `WorkerSettings` class."""
    rules = _Rules(
        getattr(settings, "max_tries", 5),
        getattr(settings, "retry_jobs", True),
        getattr(settings, "job_timeout", 300),
    )
    progress: Mapping[str, Any] = getattr(settings, "progress", {})
    for name in ("functions", "cron_jobs"):
        if getattr(settings, name, None):
            setattr(settings, name, list(_reported(getattr(settings, name), rules, progress)))
    for name, before, after in (("on_startup", _take_pool, None), ("on_job_start", None, _note_job)):
        setattr(settings, name, staticmethod(_in_turn(before, getattr(settings, name, None), after)))
    return settings


async def create_pool(*args: Any, **options: Any) -> "ArqRedis":
    """Connect as `arq.create_pool` does; jobs that are enqueued through this pool are operations."""
    return ArqRedis.of(await arq.connections.create_pool(*args, **options))


class Job(arq.jobs.Job):
    """A job that is an operation."""

    async def abort(self, **options: Any) -> bool:
        """Abort the job as arq does. If the job had not begun, end its operation."""
        aborted = await super().abort(**options) or await self._was_aborted()
        if aborted:
            await asyncio.to_thread(end_from_outside, self.job_id, Status.CANCELLED, "cancelled", "aborted")
        return aborted

    async def _was_aborted(self) -> bool:
        # arq looks for the result first and then for the job. If the job ends in between, it finds neither.
        info = await self.result_info()
        return info is not None and isinstance(info.result, asyncio.CancelledError)


class ArqRedis(arq.connections.ArqRedis):
    """A pool that creates a pending operation for each job that it enqueues."""

    @classmethod
    def of(cls, pool: arq.connections.ArqRedis) -> "ArqRedis":
        """Return a pool that uses the connections of the given pool. Close it instead of the given one."""
        made = cls(
            pool.connection_pool,
            job_serializer=pool.job_serializer,
            job_deserializer=pool.job_deserializer,
            default_queue_name=pool.default_queue_name,
            expires_extra_ms=pool.expires_extra_ms,
        )
        made._given = pool
        return made

    _given: arq.connections.ArqRedis | None = None

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections."""
        await super().aclose(close_connection_pool)
        if self._given is not None:
            await self._given.aclose(close_connection_pool)

    async def enqueue_job(self, function: str, *args: Any, _progress: Any = None, **options: Any) -> Job | None:
        """Enqueue a job as arq does, and create its operation.

        `_progress` holds the operation's options (`kind`, `title`, `owner`, `tags`). With False, the job is not
        reported.
        """
        options["_job_id"] = options.get("_job_id") or uuid4().hex
        operation_options = merge_options(function, _progress)
        if operation_options is not None:
            # First the operation: a job carries no options, so a worker that starts earlier would set its own.
            await asyncio.to_thread(create_for_task, options["_job_id"], operation_options)
        job = await super().enqueue_job(function, *args, **options)
        if job is None:
            return None
        queue = options.get("_queue_name") or self.default_queue_name
        return Job(job.job_id, redis=self, _queue_name=queue, _deserializer=self.job_deserializer)


class _Rules(NamedTuple):
    """What a worker does with jobs that end early, if the function has no setting of its own."""

    max_tries: int
    retry_jobs: bool
    timeout_s: Any


def _reported(jobs: Iterable[Any], rules: _Rules, progress: Mapping[str, Any]) -> Iterable[Any]:
    for entry in jobs:
        job = entry if hasattr(entry, "next_run") else func(entry)  # only cron jobs have a `next_run`
        operation_options = merge_options(job.name, progress.get(job.name))
        yield (
            job
            if operation_options is None
            else replace(job, coroutine=_Reported(job, rules, operation_options).wrapper())
        )


def _in_turn(*hooks: Hook | None) -> Hook:
    async def all_of_them(ctx: dict[Any, Any]) -> None:
        for hook in filter(None, hooks):
            await hook(ctx)

    return all_of_them


async def _take_pool(ctx: dict[Any, Any]) -> None:
    ctx["redis"] = ArqRedis.of(ctx["redis"])


async def _note_job(ctx: dict[Any, Any]) -> None:
    ctx[_OUTER], ctx[_SINCE] = asyncio.current_task(), asyncio.get_running_loop().time()


class _Reported:
    """An arq function whose jobs are reported."""

    def __init__(self, function: Function, rules: _Rules, operation_options: OperationOptions) -> None:
        self._work, self._operation_options = function.coroutine, operation_options
        self._retry_jobs = rules.retry_jobs
        self._max_tries = rules.max_tries if function.max_tries is None else function.max_tries
        timeout = rules.timeout_s if function.timeout_s is None else function.timeout_s
        self._timeout_s: float = timeout.total_seconds() if hasattr(timeout, "total_seconds") else timeout

    def wrapper(self) -> Callable[..., Awaitable[Any]]:
        """Return the coroutine function that arq calls."""

        @functools.wraps(self._work)
        async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
            return await self._run(ctx, functools.partial(self._work, ctx, *args, **kwargs))

        return run

    async def _run(self, ctx: dict[Any, Any], work: Callable[[], Awaitable[Any]]) -> Any:
        job = ctx["job_id"]
        ctx.setdefault(_SINCE, asyncio.get_running_loop().time())
        try:
            op = await asyncio.to_thread(
                begin, AsyncOperation, job, self._operation_options, ctx["enqueue_time"].timestamp()
            )
        except asyncio.CancelledError:
            if late := self._late(ctx):
                await asyncio.to_thread(end_from_outside, job, Status.FAILED, type(late).__name__, str(late))
            elif not _stopping(ctx):
                await asyncio.to_thread(end_from_outside, job, Status.CANCELLED, "cancelled", "aborted")
            raise
        await op.__aenter__()
        try:
            result = await work()
        except BaseException as error:
            self._report_error(op, error, ctx)
            await op.__aexit__(type(error), error, error.__traceback__)
            raise
        succeed(op, result)
        await leave_async(op)
        return result

    def _late(self, ctx: dict[Any, Any]) -> TimeoutError | None:
        is_late = asyncio.get_running_loop().time() - ctx[_SINCE] >= self._timeout_s
        return TimeoutError(f"the job took longer than {self._timeout_s:g} s") if is_late else None

    def _report_error(self, op: AsyncOperation | NullOperation, error: BaseException, ctx: dict[Any, Any]) -> None:
        """Report how the job ended, in the cases where the exception alone does not tell what arq will do."""
        again = self._retry_jobs and ctx["job_try"] < self._max_tries
        if op.cancelled:
            return
        if isinstance(error, Retry | RetryJob):
            why: BaseException | str = error.__cause__ or error
            delay_s = seconds(getattr(error, "defer_score", None)) / 1000
            op.retry_in(delay_s, why) if again else op.fail(why)
        elif isinstance(error, asyncio.CancelledError):
            if late := self._late(ctx):
                op.fail(late)
            elif not _stopping(ctx):
                op.fail(Cancelled(op.id, "aborted"))
            else:
                why = "the job's worker was stopped"
                op.retry_in(0, why) if again else op.fail(why)


def _stopping(ctx: dict[Any, Any]) -> bool:
    """Return whether a job was cancelled because its worker stops. Then the task that waits for it is cancelled too."""
    outer = ctx.get(_OUTER)
    return outer is not None and outer.cancelling() > 0
