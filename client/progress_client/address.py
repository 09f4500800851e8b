"""Which way leads to the operations: a server over HTTP (`PROGRESS_URL`), or Redis (`PROGRESS_REDIS_URL`)."""

from pydantic import SecretStr

from progress_broker.errors import SetupError
from progress_broker.settings import Settings


def server_url(settings: Settings) -> str | None:
    """Return the URL of the server to use, without a slash at its end; None if the operations are read in Redis.

    Raises `SetupError` if both addresses are set.
    """
    if settings.url is not None and settings.redis_url is not None:
        raise SetupError(
            "PROGRESS_URL and PROGRESS_REDIS_URL are both set: remove PROGRESS_REDIS_URL to use the server, or"
            " PROGRESS_URL to use Redis directly"
        )
    return settings.url


def locate(settings: Settings) -> Settings:
    """Return the settings with the Redis address to use: if none is set, that of the private Redis on this machine.

    Raises `SetupError` if there is none.
    """
    if settings.redis_url is not None:
        return settings
    from progress_broker.embedded.data_dir import find_address, is_owned  # imported only if no address is set
    from progress_broker.embedded.embedded import answers

    address = find_address(settings)
    if address is not None and answers(address):
        return settings.model_copy(update={"redis_url": SecretStr(address)})
    if is_owned(settings.data_dir):
        raise SetupError(
            f"the private Redis in {settings.data_dir} is starting, or does not answer:"
            " try again; if it goes on, see redis.log there"
        )
    raise SetupError(
        "no Redis found: set PROGRESS_REDIS_URL, or start `progress-broker serve`"
        f" (commands find its embedded Redis through {settings.data_dir})"
    )
