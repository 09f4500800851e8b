"""How the broker reaches Redis: the one place that makes clients.

Callers ask for a client for commands, and for the readers of the feeds: which lanes each may follow with one blocking
XREAD. On a single server that is one reader for all lanes. Sentinel changes what an address resolves to, and Cluster
how lanes are grouped; neither changes a caller.
"""

from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from progress_broker.errors import SetupError, StorageUnavailable
from progress_broker.settings import Settings
from progress_broker.storage.failover import Generation, inquire_by, pool_options
from progress_broker.storage.instrumented import RoundTrips, counted
from progress_broker.storage.redis_errors import storage_errors
from progress_broker.storage.server_kind import NotMaster

BLOCK_MS = 2000
"""How long a blocking read waits in Redis. Its return proves the connection alive, so it is short."""

_MAX_CONNECTIONS = 32

Client = TypeVar("Client", redis.Redis, aioredis.Redis)


class Reader(NamedTuple):
    """A connection of its own for blocking reads, and the lanes it can follow."""

    redis: "aioredis.Redis"
    lanes: tuple[int, ...]


def _options(settings: Settings, retry: type[Any]) -> dict[str, Any]:
    # Nothing is left to the library's defaults: they have changed between releases, its retries would repeat
    # a write whose answer was lost, and its timeouts would cut a blocking read.
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
            "no Redis address is known: set PROGRESS_REDIS_URL, or start a private one with `progress-broker serve`"
        )
    address = settings.redis_url.get_secret_value()
    try:
        redis.ConnectionPool.from_url(address).make_connection()  # which connects to nothing yet
    except (ValueError, TypeError):  # what the library says of it may quote a part of a password
        raise SetupError(
            "PROGRESS_REDIS_URL can't be used: it looks like redis://user:password@host:6379/0,"
            " and in a password characters such as / : @ # % are written as %2F %3A %40 %23 %25"
        ) from None
    return address


def unparsed(client: Client) -> Client:
    """Return the client, made to hand stream replies over as they come: the library's parsing costs more than ours."""
    for command in ("XREAD", "XRANGE", "XREVRANGE"):
        client.set_response_callback(command, _as_it_is)  # type: ignore[arg-type]
    return client


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply


class Connections:
    """The asyncio clients of a process. Close it, or leave its block, when done."""

    def __init__(
        self,
        commands: "aioredis.Redis",
        reader: "aioredis.Redis",
        lanes: int,
        trips: RoundTrips | None = None,
    ) -> None:
        self.trips = trips or RoundTrips()
        """What was asked of Redis; nothing, where the clients that were given don't count."""
        self.commands: Any = unparsed(commands)  # the library's types describe what its parsing would make of replies
        self._reader = unparsed(reader)
        self._lanes = lanes
        self._generation: Generation | None = None  # of clients that were given, nothing is known
        self._address = ""

    @classmethod
    def open(cls, settings: Settings, lanes: int) -> "Connections":
        """Return connections to the Redis of the settings. Nothing is sent yet."""
        trips, generation = RoundTrips(), Generation()
        address, options = _address(settings), _options(settings, AsyncRetry)
        counting = {"redis_connect_func": trips.on_connect}
        bounds: dict[str, Any] = {"max_connections": _MAX_CONNECTIONS, "timeout": settings.redis_timeout_s}
        pool = aioredis.BlockingConnectionPool(
            **bounds | options | pool_options(address, aioredis.Connection, generation) | counting
        )
        options["socket_timeout"] = BLOCK_MS / 1000 + settings.redis_timeout_s
        # Strict: what a blocking read was told so far has to be compared with what another server has.
        reading = aioredis.ConnectionPool(
            **options | pool_options(address, aioredis.Connection, generation, strict=True) | counting
        )
        opened = cls(counted(pool, trips), aioredis.Redis.from_pool(reading), lanes, trips)
        opened._generation, opened._address = generation, address
        return opened

    def readers(self) -> list[Reader]:
        """Return who reads which lanes' feeds."""
        return [Reader(self._reader, tuple(range(self._lanes)))]

    def for_blocking(self) -> "aioredis.Redis":
        """Return a client whose reads may block for `BLOCK_MS`."""
        return self._reader

    async def check_master(self) -> None:
        """Raise `StorageUnavailable`, and leave the server, if it is no longer the master.

        A replica that takes writes refuses nothing; its demotion is told to those alone who were blocked just then.
        """
        if self._generation is None:
            return
        number = self._generation.number
        with storage_errors():
            try:
                await inquire_by(self.commands.execute_command, self._address)
            except NotMaster:
                self._generation.leave(number)
                raise

    async def close(self) -> None:
        """Close every connection."""
        await self.commands.aclose()
        await self._reader.aclose()


def connect(settings: Settings, *, blocking: bool = False, generation: Generation | None = None) -> "redis.Redis":
    """Return a synchronous client, for worker processes; `blocking` gives it the patience of blocking reads.

    Clients that share a `generation` leave a demoted server together.
    """
    address, options = _address(settings), _options(settings, Retry)
    if blocking:
        options["socket_timeout"] = BLOCK_MS / 1000 + settings.redis_timeout_s
    kept = pool_options(address, redis.Connection, generation or Generation(), strict=blocking)
    return unparsed(redis.Redis.from_pool(redis.ConnectionPool(**options | kept)))
