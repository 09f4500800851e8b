"""A replica that accepts writes rejects none, and reports its demotion only to blocked calls: connections ask."""

from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis

from progress_broker.nodes.generations import ASK_EVERY_S, ConnectionGeneration, pool_options
from progress_broker.routing.address import parse_address
from tests.servers import RealRedis, free_port


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class AsyncClients:
    """Two connections of one generation."""

    def __init__(self, url: str, clock: Clock) -> None:
        options = pool_options(parse_address(url), aioredis.Connection, ConnectionGeneration(clock))
        self._clients = [aioredis.Redis.from_pool(aioredis.ConnectionPool(**options)) for _ in range(2)]

    async def write(self, number: int) -> Any:
        return await self._clients[number].set("written", 1)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


class ThreadClients:
    """The same for threads."""

    def __init__(self, url: str, clock: Clock) -> None:
        options = pool_options(parse_address(url), redis.Connection, ConnectionGeneration(clock))
        self._clients = [redis.Redis.from_pool(redis.ConnectionPool(**options)) for _ in range(2)]

    async def write(self, number: int) -> Any:
        return self._clients[number].set("written", 1)

    async def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.mark.parametrize("kind", [AsyncClients, ThreadClients])
@pytest.mark.parametrize("options", [(), ("--rename-command", "HELLO", "")], ids=["asked by HELLO", "asked by INFO"])
async def test_each_connection_leaves_a_replica_that_accepts_writes(
    tmp_path: Path, kind: type[AsyncClients] | type[ThreadClients], options: tuple[str, ...]
) -> None:
    clock = Clock()
    with (
        RealRedis(tmp_path / "redis", port=free_port(), options=options) as server,
        redis.Redis.from_url(server.url, protocol=2) as operator,
    ):
        clients = kind(f"{server.url}?protocol=2", clock)
        for _ in range(3):
            assert await clients.write(0)
            assert await clients.write(1)
            clock.now += ASK_EVERY_S  # the answer is read apart from the reply to the command
        assert await clients.write(0)
        operator.config_set("replica-read-only", "no")
        operator.replicaof("127.0.0.1", free_port())
        assert await clients.write(0), "it has asked less than a second ago, and the replica accepts the write"
        clock.now += ASK_EVERY_S
        with pytest.raises(redis.exceptions.ConnectionError, match="no longer the master"):
            await clients.write(0)
        with pytest.raises(redis.exceptions.ConnectionError, match="is a replica of"):
            await clients.write(1)  # the generation has ended, so this connection is made anew, and asks
        operator.replicaof("NO", "ONE")
        assert await clients.write(0)
        assert await clients.write(1)
        await clients.close()
