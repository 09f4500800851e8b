"""How commands reach the operations: straight to Redis, at the address of the settings or the embedded one's."""

from pydantic import SecretStr

from progress_broker.embedded.data_dir import find_address
from progress_broker.embedded.embedded import answers
from progress_broker.errors import SetupError
from progress_broker.settings import Settings


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
