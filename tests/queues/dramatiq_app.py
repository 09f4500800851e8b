"""Plain actors. Run: `dramatiq tests.queues.dramatiq_app`."""

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from progress_workers.queues.dramatiq import install
from tests.queues import work

broker = RedisBroker(
    url=os.environ["QUEUE_REDIS_URL"],
    maintenance_chance=1_000_000,  # look for the messages of dead processes at each step
)
install(broker, interrupt_after_s=0.3)
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=0, progress={"kind": "count", "tags": ["eu"]})
def count(rows: int) -> Any:
    return work.count(rows)


@dramatiq.actor(max_retries=0)
def odd() -> Any:
    return work.odd()


@dramatiq.actor(max_retries=0)
def returns(name: str) -> Any:
    return work.returns(name)


@dramatiq.actor(max_retries=0, progress=False)
def returns_unreported(name: str) -> Any:
    return work.returns(name)


@dramatiq.actor(max_retries=0)
def breaks() -> None:
    work.breaks()


@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=10)
def flaky() -> int:
    return work.flaky()


@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=10)
def hopeless() -> None:
    work.breaks()


@dramatiq.actor
def dies() -> int:
    return work.dies()


@dramatiq.actor
def waits() -> None:
    work.waits()


@dramatiq.actor
def deaf() -> None:
    work.deaf()


@dramatiq.actor
def touch(path: str) -> None:
    work.touch(path)


@dramatiq.actor(progress=False)
def unreported() -> None:
    work.count(3)


@dramatiq.actor(max_age=1)
def too_old() -> None:
    work.count(3)
