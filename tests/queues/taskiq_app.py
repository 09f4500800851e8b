"""Plain tasks of taskiq. Run: `taskiq worker tests.queues.taskiq_app:broker`."""

import os
from typing import Any

from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends
from taskiq_redis import RedisStreamBroker

from progress_workers import current
from progress_workers.queues.taskiq import ProgressMiddleware
from tests.queues import work

broker = RedisStreamBroker(
    os.environ["QUEUE_REDIS_URL"],
    consumer_id="0",
    xread_block=100,
    idle_timeout=60_000,
    unacknowledged_lock_timeout=1,  # otherwise a worker that is killed with this lock would block all others forever
).with_middlewares(SimpleRetryMiddleware(default_retry_count=2), ProgressMiddleware())


@broker.task(progress_kind="count", progress_tags="eu")
async def count(rows: int) -> Any:
    return work.count(rows)


@broker.task
def odd() -> Any:
    return work.odd()


@broker.task
async def returns(name: str) -> Any:
    return work.returns(name)


@broker.task(progress=False)
async def returns_unreported(name: str) -> Any:
    return work.returns(name)


@broker.task
async def breaks() -> None:
    work.breaks()


@broker.task(retry_on_error=True)
async def flaky() -> int:
    return work.flaky()


@broker.task(retry_on_error=True)
def hopeless() -> None:
    work.breaks()


@broker.task
async def dies() -> int:
    return work.dies()


@broker.task(retry_on_error=True)
def waits() -> None:
    work.waits()


@broker.task(retry_on_error=True)
async def deaf() -> None:
    await work.waits_async()


@broker.task
async def touch(path: str) -> None:
    work.touch(path)


@broker.task
def touch_plain(path: str) -> None:
    work.touch(path)


@broker.task(progress=False)
async def unreported() -> None:
    work.count(3)


@broker.task
async def requeued(context: Context = TaskiqDepends()) -> None:  # noqa: B008 - as taskiq has it
    if current().attempt == 1:
        await context.requeue()
