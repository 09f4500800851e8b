"""What operators ask of the replicas, through a server or in Redis itself, and what they change there."""

from typing import Protocol

from progress_broker.access.audit import AuditFilter, AuditPage
from progress_broker.replicas.presence import Replicas
from progress_broker.replicas.streams import Kicked, StreamFilter, StreamsPage


class Administration(Protocol):
    """The calls. Each method raises a `BrokerError` if it fails."""

    async def replicas(self) -> Replicas:
        """Return the replicas that are present."""

    async def streams(self, wanted: StreamFilter, *, limit: int, cursor: str | None) -> StreamsPage:
        """Return a page of the open streams of all replicas."""

    async def kick(self, connection: str, *, for_good: bool) -> Kicked:
        """End a stream."""

    async def audit(self, wanted: AuditFilter, *, limit: int, cursor: str | None) -> AuditPage:
        """Return a page of who changed what, newest first."""

    async def close(self) -> None:
        """Close the connections."""
