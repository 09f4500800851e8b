"""What operators ask of the replicas, in Redis itself. What they change is in the audit, too."""

from typing import Self

from progress_broker.operations.store import Store
from progress_broker.replicas import streams
from progress_broker.replicas.presence import Replicas, list_replicas
from progress_broker.replicas.streams import Kicked, StreamFilter, StreamsPage
from progress_broker.settings import Settings


class AdminOverRedis:
    """Asks through Redis. `by` is who asks, for the audit."""

    def __init__(self, store: Store, by: str) -> None:
        self._store, self._by = store, by

    @classmethod
    async def open(cls, settings: Settings, by: str) -> Self:
        """Connect; raise `SetupError` if this Redis can't be used, `StorageUnavailable` if it may be later."""
        return cls(await Store.reach(settings), by)

    async def replicas(self) -> Replicas:
        """Return the replicas that are present."""
        return await list_replicas(self._store)

    async def streams(self, wanted: StreamFilter, *, limit: int, cursor: str | None) -> StreamsPage:
        """Return a page of the open streams of all replicas."""
        return await streams.list_streams(self._store, wanted, limit=limit, cursor=cursor)

    async def kick(self, connection: str, *, for_good: bool) -> Kicked:
        """End a stream."""
        return await streams.kick(self._store, connection, for_good=for_good)

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()
