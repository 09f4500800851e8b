"""How commands reach the operations: directly in Redis, at the configured address or that of the embedded Redis."""

from pydantic import SecretStr

from progress_broker.embedded.data_dir import find_address, is_owned
from progress_broker.embedded.embedded import answers
from progress_broker.errors import SetupError
from progress_broker.settings import Settings


def locate(settings: Settings) -> Settings:
    """Return the settings with the Redis address to use; raise `SetupError` if there is none."""
    if settings.redis_url is not None:
        return settings
    address = find_address(settings)
    if address is None or not answers(address):
        if is_owned(settings.data_dir):
            raise SetupError(
                f"the private Redis in {settings.data_dir} is starting, or does not answer:"
                " try again; if it goes on, see redis.log there"
            )
        raise SetupError(
            "no Redis found: set PROGRESS_REDIS_URL, or start `progress-broker serve`"
            f" (commands find its embedded Redis through {settings.data_dir})"
        )
    return at(settings, address)


def at(settings: Settings, address: str) -> Settings:
    """Return the settings with this Redis address."""
    return settings.model_copy(update={"redis_url": SecretStr(address)})
