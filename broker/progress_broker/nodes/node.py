"""One Redis server, as this process is connected to it."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from progress_broker.nodes.generations import ConnectionGeneration, pool_options
from progress_broker.nodes.instrumented import ClientMetrics, counted
from progress_broker.nodes.pool_settings import address_of, pool_settings
from progress_broker.nodes.replicas import Replicas, replicas_of
from progress_broker.nodes.run import ScriptQueue, Scripts
from progress_broker.nodes.sentinels.asynchronous import AsyncMaster
from progress_broker.nodes.sentinels.threads import ThreadedMaster
from progress_broker.routing.address import RedisAddress
from progress_broker.settings import Settings

_MAX_CONNECTIONS = 32

Client = TypeVar("Client", redis.Redis, aioredis.Redis)


def unparsed(client: Client) -> Client:
    """Return the client, changed to return raw stream replies: the library's parsing costs more than ours."""
    for command in ("XREAD", "XRANGE", "XREVRANGE"):
        client.set_response_callback(command, _as_it_is)  # type: ignore[arg-type]
    return client


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


def _ignore(_: Exception) -> None:
    pass


class Node:
    """One Redis server, for asyncio. Call `close` when done."""

    def __init__(
        self, commands: "aioredis.Redis", blocking: "aioredis.Redis", replicas: Replicas | None = None
    ) -> None:
        self.commands: Any = unparsed(commands)  # `Any`, because the library's types describe parsed replies
        self.blocking = unparsed(blocking)
        """A client for reads that block for up to `BLOCK_MS`."""
        self.scripts = Scripts(self.commands, replicas)
        self.queue = ScriptQueue(self.commands)
        self.heard: Callable[[Exception], None] = _ignore
        """To be called with each error of the server, or of a connection to it."""
        self._shown = ""
        self._master: AsyncMaster | None = None  # of a Sentinel set

    @classmethod
    def open(
        cls,
        settings: Settings,
        trips: ClientMetrics,
        address: RedisAddress | None = None,
        heard: Callable[[Exception], None] | None = None,
    ) -> Self:
        """Return the Redis of the settings, or the one server of an address. Nothing is sent yet.

        `heard` is called with each error that a connection reads.
        """
        address, retry = address or address_of(settings), AsyncRetry(NoBackoff(), 0)
        generation = ConnectionGeneration(kind=address.kind, heard=heard)
        master = AsyncMaster(address, generation) if address.kind == "sentinel" else None
        counting = {"redis_connect_func": trips.on_connect}
        bounds: dict[str, Any] = {"max_connections": _MAX_CONNECTIONS, "timeout": settings.redis_timeout_s}
        kept = _led(pool_options(address, aioredis.Connection, generation), master)
        pool = aioredis.BlockingConnectionPool(**bounds | pool_settings(settings, retry) | kept | counting)
        # Strict: after a switch to another server, the feed reader must compare its positions with that server first.
        kept = _led(pool_options(address, aioredis.Connection, generation, strict=True), master)
        blocking = aioredis.ConnectionPool(**pool_settings(settings, retry, blocking=True) | kept | counting)
        replicas = replicas_of(address, settings)
        generation.remade = replicas.forget
        node = cls(counted(pool, trips), aioredis.Redis.from_pool(blocking), replicas)
        node._shown, node._master = address.shown, master
        node.heard = heard or _ignore
        if master is not None:
            master.make_connection = pool.make_connection
        return node

    @property
    def shown(self) -> str:
        """Its address, for people."""
        master = None if self._master is None else self._master.known.current
        return self._shown if master is None else f"{master} of {self._shown}"

    async def ask(self, *words: str) -> Any:
        """Send a command over a connection of its own, which waits for no call. Return the reply as Redis sent it."""
        connection = self.commands.connection_pool.make_connection()
        try:
            await connection.connect()
            await connection.send_command(*words, check_health=False)
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)

    async def leave(self) -> None:
        """Close every connection. Calls under way fail at once, and do not wait for a server that may hang."""
        await self.commands.connection_pool.disconnect(inuse_connections=True)
        await self.blocking.connection_pool.disconnect(inuse_connections=True)
        await self.close()

    async def close(self) -> None:
        """Answer what the queue was asked for, and close every connection."""
        await self.queue.close()
        if self._master is not None:
            await self._master.close()
        await self.commands.aclose()
        await self.blocking.aclose()


def connect(
    settings: Settings,
    *,
    blocking: bool = False,
    generation: ConnectionGeneration | None = None,
    master: ThreadedMaster | None = None,
    address: RedisAddress | None = None,
) -> "redis.Redis":
    """Return a synchronous client, for worker processes. `blocking` sets the timeout for blocking reads.

    It is for the Redis of the settings, which is no Cluster, or for the server of an `address`. Clients that share a
    `generation`, or the `master` of a Sentinel set, disconnect from a demoted server together.
    """
    options = pool_settings(settings, Retry(NoBackoff(), 0), blocking=blocking)
    generation = generation or ConnectionGeneration()
    kept = pool_options(address or address_of(settings), redis.Connection, generation, strict=blocking)
    if address is None and master is None:
        master = master_of(settings, generation)
    pool = redis.ConnectionPool(**options | _led(kept, master))
    if master is not None and master.make_connection is None:
        master.make_connection = pool.make_connection
    return unparsed(redis.Redis.from_pool(pool))


def master_of(settings: Settings, generation: ConnectionGeneration) -> ThreadedMaster | None:
    """Return the master of the Sentinel set that the settings name; None if they name a server."""
    address = address_of(settings)
    return ThreadedMaster(address, generation) if address.kind == "sentinel" else None


def _led(options: dict[str, Any], master: AsyncMaster | ThreadedMaster | None) -> dict[str, Any]:
    return options if master is None else master.led(options)
