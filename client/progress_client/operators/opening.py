"""Which way leads operators to the operations."""

from progress_broker.settings import Settings
from progress_client.address import locate, server_url
from progress_client.operators.operators import Operators


async def open_operators(settings: Settings) -> Operators:
    """Connect to the server or to the Redis of the settings; raise `SetupError` or `StorageUnavailable`."""
    if server_url(settings) is not None:
        from progress_client.operators.over_http import OverHttp  # it needs the extra `http`

        return OverHttp(settings)
    from progress_client.operators.over_redis import OverRedis

    return await OverRedis.open(locate(settings))
