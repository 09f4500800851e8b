"""What operators ask of where the operations are. Commands know only this, and not whether it is a server or Redis."""

from datetime import datetime
from typing import Protocol

from progress_broker.queries.filters import Filters
from progress_broker.transfer.endpoints import OperationSource, OperationTarget


class Operators(Protocol):
    """The calls of operators. Each method raises a `BrokerError` if it fails."""

    async def now(self) -> datetime:
        """Return the time by the clock that the times of operations are by."""

    def source(self, filters: Filters) -> OperationSource:
        """Return the operations that match, to move or copy them elsewhere."""

    def target(self) -> OperationTarget:
        """Return where operations from elsewhere are stored."""

    async def close(self) -> None:
        """Close the connections."""
