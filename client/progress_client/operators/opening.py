"""Which way leads operators to the operations."""

from progress_broker.settings import Settings
from progress_client.address import locate, server_url
from progress_client.operators.operators import Operators


async def open_operators(settings: Settings, by: str) -> Operators:
    """Connect to the server or to the Redis of the settings; raise `SetupError` or `StorageUnavailable`.

    `by` is who asks, for the audit of what is changed in Redis itself.
    """
    if server_url(settings) is not None:
        from progress_client.operators.over_http import OverHttp  # it needs the extra `http`

        return OverHttp(settings)
    from progress_client.operators.over_redis import OverRedis

    return await OverRedis.open(locate(settings), by)
