"""How the broker reaches Redis: the one place that makes clients and that reads Redis' own errors.

Callers ask for a client for commands, and for the readers of the feeds: which lanes each may follow with one blocking
XREAD. On a single server that is one reader for all lanes. Sentinel changes what an address resolves to, and Cluster
how lanes are grouped; neither changes a caller.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.errors import SetupError, StorageFull, StorageUnavailable
from broker.round_trips import RoundTrips, counted
from broker.settings import Settings

BLOCK_MS = 2000
"""How long a blocking read waits in Redis. Its return proves the connection alive, so it is short."""

_MAX_CONNECTIONS = 32
_UNAVAILABLE = (
    "BUSY",
    "MOVED",
    "ASK",
    "NOPERM",
    "UNBLOCKED",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "NOAUTH",
)

_FULL = "Redis is out of memory and takes no writes: give it more, or shorten retention"
_SCRIPT_ERROR = re.compile("^Error running script.*: -(?=[A-Z]+ )")
"""What Redis before 7 puts before the error of a command in a script."""


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
        self, commands: "aioredis.Redis", reader: "aioredis.Redis", lanes: int, trips: RoundTrips | None = None
    ) -> None:
        self.trips = trips or RoundTrips()
        """What was asked of Redis; nothing, where the clients that were given don't count."""
        self.commands: Any = unparsed(commands)  # the library's types describe what its parsing would make of replies
        self._reader = unparsed(reader)
        self._lanes = lanes

    @classmethod
    def open(cls, settings: Settings, lanes: int) -> "Connections":
        """Return connections to the Redis of the settings. Nothing is sent yet."""
        trips = RoundTrips()
        address, options = _address(settings), _options(settings, AsyncRetry)
        options["redis_connect_func"] = trips.on_connect
        pool = aioredis.BlockingConnectionPool.from_url(
            address, max_connections=_MAX_CONNECTIONS, timeout=settings.redis_timeout_s, **options
        )
        options["socket_timeout"] = BLOCK_MS / 1000 + settings.redis_timeout_s
        reading = aioredis.ConnectionPool.from_url(address, **options)
        return cls(counted(pool, trips), aioredis.Redis.from_pool(reading), lanes, trips)

    def readers(self) -> list[Reader]:
        """Return who reads which lanes' feeds."""
        return [Reader(self._reader, tuple(range(self._lanes)))]

    def for_blocking(self) -> "aioredis.Redis":
        """Return a client whose reads may block for `BLOCK_MS`."""
        return self._reader

    async def close(self) -> None:
        """Close every connection."""
        await self.commands.aclose()
        await self._reader.aclose()


def connect(settings: Settings, *, blocking: bool = False) -> "redis.Redis":
    """Return a synchronous client, for worker processes; `blocking` gives it the patience of blocking reads."""
    options = _options(settings, Retry)
    if blocking:
        options["socket_timeout"] = BLOCK_MS / 1000 + settings.redis_timeout_s
    return unparsed(redis.Redis.from_url(_address(settings), **options))


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn Redis' and the network's errors into the broker's own."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError:
        raise StorageFull(_FULL) from None
    except redis.exceptions.AuthenticationError as error:
        raise StorageUnavailable(f"Redis refuses the user or password of PROGRESS_REDIS_URL: {error}") from None
    except redis.exceptions.NoPermissionError as error:
        raise StorageUnavailable(
            f"Redis does not grant the user of PROGRESS_REDIS_URL all that is needed, see deploy/redis.conf: {error}"
        ) from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise StorageUnavailable(f"Redis can't be reached: {str(error) or type(error).__name__}") from None
    except redis.exceptions.NoScriptError:
        raise StorageUnavailable("Redis has forgotten a script it was just taught: it may be failing over") from None
    except redis.exceptions.InvalidResponse as error:
        raise StorageUnavailable(f"what answers is no Redis: {str(error)[:100]}") from None
    except redis.exceptions.ResponseError as error:
        text = _SCRIPT_ERROR.sub("", str(error))
        if text.startswith("OOM"):
            raise StorageFull(_FULL) from None
        if text.startswith("MISCONF"):
            raise StorageFull("Redis can't write to its disk and takes no writes: see its log") from None
        if isinstance(error, redis.exceptions.ReadOnlyError) or text.startswith(_UNAVAILABLE):
            raise StorageUnavailable(f"Redis can't answer now: {text}") from None
        raise
