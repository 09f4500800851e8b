"""The options with which the client library makes connections to a Redis."""

from typing import Any

import redis

from progress_broker.errors import SetupError, StorageUnavailable
from progress_broker.routing.address import RedisAddress, parse_address
from progress_broker.settings import Settings

BLOCK_MS = 2000
"""How long a blocking read waits in Redis. It is short, because its return proves that the connection works."""

_FORM = (
    "write it like redis://user:password@host:6379/0, redis+sentinel://user:password@host,host/service/0 or"
    " redis+cluster://user:password@host,host, and write the characters / : @ # % in a password as %2F %3A %40 %23 %25"
)


def address_of(settings: Settings) -> RedisAddress:
    """Return the configured address. Raises `StorageUnavailable` if there is none, and `SetupError` if it is wrong."""
    if settings.redis_url is None:
        raise StorageUnavailable(
            "no Redis is configured: set PROGRESS_REDIS_URL, or start a private one with `progress-broker serve`"
        )
    try:
        address = parse_address(settings.redis_url.get_secret_value())
    except ValueError as error:
        raise SetupError(f"PROGRESS_REDIS_URL is invalid ({error}): {_FORM}") from None
    try:
        redis.ConnectionPool.from_url(address.url_of(address.seeds[0])).make_connection()  # this does not connect yet
    except (ValueError, TypeError):  # not shown, because the library's message may quote a part of the password
        raise SetupError(f"PROGRESS_REDIS_URL is invalid (an option is wrong): {_FORM}") from None
    return address


def pool_settings(settings: Settings, retry: Any, *, blocking: bool = False) -> dict[str, Any]:
    """Return the options that all connections have. `blocking` is for reads that block for up to `BLOCK_MS`.

    All options are set, and no default of the library is used: defaults have changed between releases. Its retries
    would repeat a write whose reply was lost, and its timeouts would interrupt a blocking read.
    """
    return {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": settings.redis_timeout_s + (BLOCK_MS / 1000 if blocking else 0),
        "socket_connect_timeout": settings.redis_timeout_s,
        "health_check_interval": 0,
        "retry": retry,
        "client_name": "progress-broker",
    }
