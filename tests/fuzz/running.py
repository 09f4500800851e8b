"""A run of a fuzzer: two replicas over one Redis, writers, clients, and connections to Redis that are cut."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Protocol

import redis

from progress_broker.hub import Hub
from progress_broker.operations.store import Store
from tests.conftest import make_settings
from tests.fuzz.account import Account
from tests.fuzz.published import Published, Writer
from tests.servers import RealRedis, eventually

STEADY_REDIS = ("steady", "interrupted")
ANY_REDIS = (*STEADY_REDIS, "forgetful")
SECONDS = float(os.environ.get("PROGRESS_FUZZ_S", "4"))
FIRST_SEED = int(os.environ["PROGRESS_STREAMS_SEED"])
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("PROGRESS_FUZZ_RUNS", "1")))

# Everything is small, so that all that is bounded comes to its bound.
SMALL = {"lanes": 3, "history_length": 6, "ring_length": 4, "page_length": 5, "max_operations_per_stream": 20}
BRIEF = {"tombstone_ttl_s": 0.25, "sweep_interval_s": 0.5, "ping_s": 5, "retention_s": 600}


class Client(Protocol):
    """Reads at random, and keeps account of what it was told."""

    account: Account

    async def follow(self) -> None:
        """Read until the writers stop."""
        ...


class Run:
    """Two hubs and what is published to them."""

    def __init__(self, server: RealRedis, store: Store, hubs: Sequence[Hub], seed: int, redis_is: str) -> None:
        self.store, self.hubs, self.redis_is = store, hubs, redis_is
        self.random = Random(seed)
        self.published = Published()
        if redis_is == "forgetful":
            self.published.length_of_lives = 10  # so that the logs at the end have had losses
        self.stop = asyncio.Event()
        self._server = server

    async def play(self, ids: Sequence[str], clients: Sequence[Client]) -> None:
        """Write and read at random for a while, and until each client has got an event; then end all operations."""
        writers = [Writer(self.store, self.published, some, self._random()) for some in (ids[::2], ids[1::2])]
        async with asyncio.TaskGroup() as tasks:
            for writer in writers:
                tasks.create_task(writer.run(self.stop))
            for client in clients:
                tasks.create_task(client.follow())
            if self.redis_is == "interrupted":
                tasks.create_task(self._interrupt())
            elif self.redis_is == "forgetful":
                tasks.create_task(self._forget())
            await asyncio.sleep(SECONDS)
            await eventually(lambda: all(client.account.counts["events"] for client in clients), "all have got events")
            self.stop.set()
        for writer in writers:
            await writer.finish()

    def _random(self) -> Random:
        return Random(self.random.random())

    async def _forget(self) -> None:
        """Kill Redis now and then, and start it with what it had a while before.

        What it loses may be newer than what it stores then, as if two masters had accepted writes.
        """
        feeds = [self.store.keyspace.lane(lane).feed for lane in range(self.store.keyspace.lanes)]
        random = self._random()
        while not self.stop.is_set():
            await asyncio.sleep(random.uniform(0.2, 0.8))
            with redis.Redis.from_url(self._server.url) as client:
                client.save()
                ahead_ms = random.choice([0, 700])
                for feed in feeds if ahead_ms else ():
                    # Not from 0 on: two different entries at one position can't be told apart.
                    with suppress(redis.ResponseError):  # nothing was published there
                        client.execute_command("XSETID", feed, f"{round(time.time() * 1000) + ahead_ms}-1000")
            await asyncio.sleep(random.uniform(0.05, 0.5))
            self._server.stop(signal.SIGKILL)
            self.published.kills += 1
            self.published.doubted.update(self.published.newest)
            await asyncio.sleep(random.choice([0, 0.3]))
            self._server.start()

    async def _interrupt(self) -> None:
        """Cut all connections to Redis now and then."""
        random = self._random()
        with redis.Redis.from_url(self._server.url) as client:
            while not self.stop.is_set():
                await asyncio.sleep(random.uniform(0.3, 1.5))
                with suppress(redis.RedisError):
                    client.client_kill_filter(_type="normal", skipme=True)


@asynccontextmanager
async def running(server: RealRedis, seed: int, redis_is: str) -> AsyncIterator[Run]:
    """Run two replicas; afterwards nothing may be left in them. If Redis forgets, it keeps all that it has."""
    small = SMALL | ({"history_length": 100_000} if redis_is == "forgetful" else {})
    settings = make_settings(redis_url=server.url, feed_length=2_000, **small, **BRIEF)
    async with await Store.open(settings) as store, Hub(store, settings) as one, Hub(store, settings) as other:
        for hub in (one, other):
            await hub.started()
        yield Run(server, store, (one, other), seed, redis_is)
        for hub in (one, other):
            assert (len(hub.channels), len(hub.bundles), len(hub.wheel)) == (0, 0, 0), "something was left"
