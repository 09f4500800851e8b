"""Which way leads to the operations: a server over HTTP (`PROGRESS_URL`), or Redis (`PROGRESS_REDIS_URL`)."""

from typing import Any

from progress_broker.errors import SetupError
from progress_broker.settings import Settings, load_settings


def settings_for(*, url: str | None = None, redis_url: str | None = None, **others: Any) -> Settings:
    """Return the settings from the environment, changed by those that are given; `None` changes nothing.

    A URL that is given replaces a Redis address of the environment, and the other way round.
    """
    settings = load_settings(url=url, redis_url=redis_url, **others)
    if url is not None and redis_url is None:
        return settings.model_copy(update={"redis_url": None})
    if redis_url is not None and url is None:
        return settings.model_copy(update={"url": None})
    return settings


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
