"""Plain coroutines and worker settings that report them. Run: `arq tests.queues.arq_app.WorkerSettings`."""

import os
from typing import Any

from arq import Retry
from arq.connections import RedisSettings
from arq.worker import func

from progress_workers.queues.arq import reported
from tests.queues import work

Context = dict[Any, Any]


async def count(ctx: Context, rows: int) -> Any:
    return work.count(rows)


async def odd(ctx: Context) -> Any:
    return work.odd()


async def returns(ctx: Context, name: str) -> Any:
    return work.returns(name)


returns_unreported = returns


async def breaks(ctx: Context) -> None:
    work.breaks()


async def flaky(ctx: Context) -> int:
    try:
        return work.flaky()
    except ValueError as error:
        raise Retry(defer=0.1) from error


async def hopeless(ctx: Context) -> None:
    try:
        work.breaks()
    except ValueError as error:
        raise Retry(defer=0.1) from error


async def dies(ctx: Context) -> int:
    return work.dies()


async def waits(ctx: Context) -> None:
    await work.waits_async()


deaf = waits


async def resumes(ctx: Context) -> int:
    return await work.resumes()


async def passes_on(ctx: Context, queue: str) -> str:
    job = await ctx["redis"].enqueue_job("count", 3, _queue_name=queue)
    return str(job.job_id)


async def slow(ctx: Context) -> None:
    await work.waits_async()


async def touch(ctx: Context, path: str) -> None:
    work.touch(path)


async def unreported(ctx: Context) -> None:
    work.count(3)


@reported
class WorkerSettings:
    functions = (
        count,
        odd,
        returns,
        func(returns_unreported, name="returns_unreported"),
        breaks,
        flaky,
        func(hopeless, max_tries=2),
        dies,
        waits,
        func(deaf, name="deaf"),
        func(slow, timeout=0.3),
        touch,
        resumes,
        passes_on,
        unreported,
    )
    redis_settings = RedisSettings.from_dsn(os.environ["QUEUE_REDIS_URL"])
    progress = {"count": {"kind": "count", "tags": ["eu"]}, "unreported": False, "returns_unreported": False}  # noqa: RUF012 - as a user writes it
    allow_abort_jobs = True
    max_jobs = 2
    poll_delay = 0.05
