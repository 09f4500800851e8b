"""Connections to Redis: the only place that creates clients.

Callers get a client for commands, and readers for the feeds. A reader says which lanes can be read with one blocking
XREAD; on a single server, one reader has all lanes. Support for Sentinel would change how an address is resolved, and
support for Cluster how lanes are grouped. Neither would change the callers.
"""

from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from progress_broker.errors import SetupError, StorageUnavailable
from progress_broker.nodes.generations import ConnectionGeneration, inquire_by, pool_options
from progress_broker.nodes.instrumented import ClientMetrics, counted
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.routing.server_kind import NotMaster
from progress_broker.settings import Settings
from progress_broker.storage.scripts import VERBS

BLOCK_MS = 2000
"""How long a blocking read waits in Redis. It is short, because its return proves that the connection works."""

_MAX_CONNECTIONS = 32

Client = TypeVar("Client", redis.Redis, aioredis.Redis)


class Reader(NamedTuple):
    """A separate client for blocking reads, and the lanes that it can read."""

    redis: "aioredis.Redis"
    lanes: tuple[int, ...]


def _options(settings: Settings, retry: type[Any]) -> dict[str, Any]:
    # All options are set, and no default of the library is used. Defaults have changed between releases. The library's
    # retries would repeat a write whose reply was lost, and its timeouts would interrupt a blocking read.
    return {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": settings.redis_timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "health_check_interval": 0,
        "retry": retry(NoBackoff(), 0),
        "client_name": "progress-broker",
    }


def _address(settings: Settings) -> str:
    if settings.redis_url is None:
        raise StorageUnavailable(
            "no Redis is configured: set PROGRESS_REDIS_URL, or start a private one with `progress-broker serve`"
        )
    address = settings.redis_url.get_secret_value()
    try:
        redis.ConnectionPool.from_url(address).make_connection()  # this does not connect yet
    except (ValueError, TypeError):  # not shown, because the library's message may quote a part of the password
        raise SetupError(
            "PROGRESS_REDIS_URL is invalid: write it like redis://user:password@host:6379/0,"
            " and write the characters / : @ # % in a password as %2F %3A %40 %23 %25"
        ) from None
    return address


def unparsed(client: Client) -> Client:
    """Return the client, changed to return raw stream replies: the library's parsing costs more than ours."""
    for command in ("XREAD", "XRANGE", "XREVRANGE"):
        client.set_response_callback(command, _as_it_is)  # type: ignore[arg-type]
    return client


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


class Connections:
    """The asyncio clients of a process. Call `close` when done."""

    def __init__(
        self,
        commands: "aioredis.Redis",
        reader: "aioredis.Redis",
        lanes: int,
        trips: ClientMetrics | None = None,
    ) -> None:
        self.trips = trips or ClientMetrics(VERBS)
        """Statistics of the calls to Redis. They stay empty if the clients that were passed in do not count."""
        self.commands: Any = unparsed(commands)  # `Any`, because the library's types describe parsed replies
        self._reader = unparsed(reader)
        self._lanes = lanes
        self._generation: ConnectionGeneration | None = None  # None for clients that were passed in
        self._address = ""

    @classmethod
    def open(cls, settings: Settings, lanes: int) -> "Connections":
        """Return connections to the Redis of the settings. Nothing is sent yet."""
        trips, generation = ClientMetrics(VERBS), ConnectionGeneration()
        address, options = _address(settings), _options(settings, AsyncRetry)
        counting = {"redis_connect_func": trips.on_connect}
        bounds: dict[str, Any] = {"max_connections": _MAX_CONNECTIONS, "timeout": settings.redis_timeout_s}
        pool = aioredis.BlockingConnectionPool(
            **bounds | options | pool_options(address, aioredis.Connection, generation) | counting
        )
        options["socket_timeout"] = BLOCK_MS / 1000 + settings.redis_timeout_s
        # Strict: after a switch to another server, the feed reader must compare its positions with that server first.
        reading = aioredis.ConnectionPool(
            **options | pool_options(address, aioredis.Connection, generation, strict=True) | counting
        )
        opened = cls(counted(pool, trips), aioredis.Redis.from_pool(reading), lanes, trips)
        opened._generation, opened._address = generation, address
        return opened

    def readers(self) -> list[Reader]:
        """Return the readers of the feeds."""
        return [Reader(self._reader, tuple(range(self._lanes)))]

    def for_blocking(self) -> "aioredis.Redis":
        """Return a client for reads that block for up to `BLOCK_MS`."""
        return self._reader

    async def check_master(self) -> None:
        """Raise `StorageUnavailable`, and end all connections to the server, if it is no longer the master.

        A replica that is configured to accept writes does not reject any. Only a client that was blocked at the moment
        of the demotion is notified of it.
        """
        if self._generation is None:
            return
        number = self._generation.number
        with storage_errors():
            try:
                await inquire_by(self.commands.execute_command, self._address)
            except NotMaster:
                self._generation.invalidate(number)
                raise

    async def close(self) -> None:
        """Close every connection."""
        await self.commands.aclose()
        await self._reader.aclose()


def connect(
    settings: Settings, *, blocking: bool = False, generation: ConnectionGeneration | None = None
) -> "redis.Redis":
    """Return a synchronous client, for worker processes. `blocking` sets the timeout for blocking reads.

    Clients that share a `generation` disconnect from a demoted server together.
    """
    address, options = _address(settings), _options(settings, Retry)
    if blocking:
        options["socket_timeout"] = BLOCK_MS / 1000 + settings.redis_timeout_s
    kept = pool_options(address, redis.Connection, generation or ConnectionGeneration(), strict=blocking)
    return unparsed(redis.Redis.from_pool(redis.ConnectionPool(**options | kept)))
