"""How commands reach the operations: straight to Redis, at the address of the settings or the embedded one's."""

import redis
from pydantic import SecretStr

from broker.embedded import answers, find_address
from broker.errors import SetupError
from broker.settings import Settings
from broker.store import Store


def locate(settings: Settings) -> Settings:
    """Return the settings with the address to use; raise `SetupError` when there is none."""
    if settings.redis_url is not None:
        return settings
    address = find_address(settings)
    if address is None or not answers(address):
        raise SetupError(
            f"no Redis is known: start `progress-broker serve` (its embedded Redis would be found in"
            f" {settings.data_dir}), or set PROGRESS_REDIS_URL"
        )
    return at(settings, address)


def at(settings: Settings, address: str) -> Settings:
    """Return the settings with this address."""
    return settings.model_copy(update={"redis_url": SecretStr(address)})


async def open_store(settings: Settings) -> Store:
    """Return a store on the Redis of the settings; raise `SetupError` if it does not suit."""
    _check_address(settings)
    return await Store.open(settings)


def _check_address(settings: Settings) -> None:
    address = settings.redis_url.get_secret_value() if settings.redis_url is not None else ""
    try:
        redis.ConnectionPool.from_url(address).make_connection()  # which connects to nothing yet
    except (ValueError, TypeError):  # what the library says of it may quote a part of a password
        raise SetupError(
            "PROGRESS_REDIS_URL can't be used: it looks like redis://user:password@host:6379/0,"
            " and in a password characters such as / : @ # % are written as %2F %3A %40 %23 %25"
        ) from None
