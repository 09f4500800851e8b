"""What operators ask of Redis itself."""

from datetime import datetime
from typing import Self

from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings
from progress_broker.transfer.redis.source import RedisSource
from progress_broker.transfer.redis.target import RedisTarget


class OverRedis:
    """Asks Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect; raise `SetupError` if this Redis can't be used, `StorageUnavailable` if it may be later."""
        return cls(await Store.reach(settings))

    async def now(self) -> datetime:
        """Return the time by Redis' clock."""
        return await self._store.now()

    def source(self, filters: Filters) -> RedisSource:
        """Return the operations that match."""
        return RedisSource(self._store, filters)

    def target(self) -> RedisTarget:
        """Return where operations are stored."""
        return RedisTarget(self._store)

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()
