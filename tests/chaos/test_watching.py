"""`watch` yields each event once, over HTTP and from Redis, while replicas are killed and Redis restarts.

`make test` runs it for a few seconds, `make chaos` for a minute (PROGRESS_CHAOS_S).
"""

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from progress_broker.history import event_log
from progress_broker.operations.store import Store
from progress_client import AsyncClient, Client, End, Event, NotFound, Reset, Snapshot
from tests.chaos.balancer import Balancer
from tests.conftest import make_settings
from tests.servers import ApiReplica, RealRedis

REPLICAS, OPERATIONS = 2, 6
HISTORY = 1_000_000


class Numbers:
    """The numbers of the events that a watcher was told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def take(self, event: Event) -> None:
        assert not isinstance(event, Snapshot | Reset), event
        self.told.append(event.n)


async def follow(client: AsyncClient, name: str, numbers: Numbers) -> None:
    async for event in client.watch(name, after="start"):
        numbers.take(event)
    assert isinstance(event, End)


def follow_in_thread(client: Client, name: str, numbers: Numbers) -> None:
    for event in client.watch(name, after="start"):
        numbers.take(event)


async def until_created(client: AsyncClient, names: list[str]) -> None:
    for name in names:
        while True:
            try:
                await client.get(name)
                break
            except NotFound:
                await asyncio.sleep(0.05)


def shuffled(faults: Sequence[Callable[[], object]], lasting_s: float) -> Iterator[Callable[[], object]]:
    """Yield faults at random until the time is over, but each of them once at least."""
    loop = asyncio.get_running_loop()
    end = loop.time() + lasting_s
    yield from random.sample(faults, len(faults))
    while loop.time() < end:
        yield random.choice(faults)


async def test_every_event_is_yielded_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "progress_client")  # a minute of warnings
    lasting_s = float(os.environ.get("PROGRESS_CHAOS_S", "6"))
    names = [f"op-{i}" for i in range(OPERATIONS)]
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(RealRedis(folder / "redis", keep=True))
        replicas = [
            stack.enter_context(ApiReplica(redis.url, folder / f"api-{i}.log", drain_s=1)) for i in range(REPLICAS)
        ]
        balancer = await stack.enter_async_context(Balancer([replica.port for replica in replicas]))
        over_http, over_redis = make_settings(url=balancer.url), make_settings(redis_url=redis.url)
        clients = [
            await stack.enter_async_context(AsyncClient(settings=it, patience_s=None)) for it in (over_http, over_redis)
        ]
        plain = Client(settings=over_http, patience_s=None)
        stack.push_async_callback(asyncio.to_thread, plain.close)
        pool = ThreadPoolExecutor(OPERATIONS)
        env = os.environ | {"PROGRESS_REDIS_URL": redis.url, "PROGRESS_HISTORY_LENGTH": str(HISTORY)}
        worker = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", *names],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=env,
            )
        )
        stack.callback(worker.kill)
        await until_created(clients[1], names)
        numbers = {name: [Numbers() for _ in range(3)] for name in names}
        watching: list[asyncio.Future[None]] = []
        for name in names:
            watching += [
                asyncio.ensure_future(follow(clients[0], name, numbers[name][0])),
                asyncio.ensure_future(follow(clients[1], name, numbers[name][1])),
                asyncio.get_running_loop().run_in_executor(pool, follow_in_thread, plain, name, numbers[name][2]),
            ]

        def restart(process: ApiReplica | RealRedis, number: int) -> None:
            process.stop(number)
            process.start()

        faults = [partial(restart, it, signal.SIGKILL) for it in replicas]
        faults += [partial(restart, replicas[0], signal.SIGTERM), partial(restart, redis, signal.SIGTERM)]
        done = 0
        for fault in shuffled(faults, lasting_s):
            await asyncio.to_thread(fault)
            for _ in range(5):
                balancer.cut()
            done += 1
            await asyncio.sleep(random.uniform(0.05, 0.5))
        await asyncio.to_thread(worker.communicate, timeout=60)
        async with asyncio.timeout(120):
            await asyncio.gather(*watching)
        async with await Store.open(over_redis) as store:
            for name in names:
                kept = [event.n for event in await event_log.kept(store, name, HISTORY)]
                assert kept == list(range(1, len(kept) + 1))
                for watcher in numbers[name]:
                    assert watcher.told == kept
        events = sum(len(watcher.told) for each in numbers.values() for watcher in each)
        told = f"watch: {lasting_s:.0f} s, {done} faults, {balancer.connections} connections, {events} events"
        print(f"{told}, none twice, none lost")
