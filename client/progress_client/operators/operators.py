"""What operators ask of where the operations are. Commands know only this, and not whether it is a server or Redis."""

from datetime import datetime
from typing import Protocol

from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import OperationSource, OperationTarget
from progress_client.address import locate, server_url
from progress_client.operators.administration import Administration
from progress_client.operators.finding import Finder
from progress_client.operators.many import Many


class Operators(Protocol):
    """The calls of operators, over one connection. Each method raises a `BrokerError` if it fails."""

    async def now(self) -> datetime:
        """Return the time by the clock that the times of operations are by."""

    @property
    def finder(self) -> Finder:
        """What finds operations."""

    @property
    def many(self) -> Many:
        """What acts on many operations."""

    @property
    def admin(self) -> Administration:
        """What shows and changes what replicas do."""

    def source(self, filters: Filters) -> OperationSource:
        """Return the operations that match, to move or copy them elsewhere."""

    def target(self) -> OperationTarget:
        """Return where operations from elsewhere are stored."""

    async def close(self) -> None:
        """Close the connections."""


async def open_operators(settings: Settings, by: str) -> Operators:
    """Connect to the server or to the Redis of the settings; raise `SetupError` or `StorageUnavailable`.

    `by` is who asks, for the audit of what is changed in Redis itself.
    """
    if server_url(settings) is not None:
        from progress_client.operators.over_http import OverHttp  # it needs the extra `http`

        return OverHttp(settings, by)
    from progress_client.operators.over_redis import OverRedis

    return await OverRedis.open(locate(settings), by)
