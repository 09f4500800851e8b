"""What operators ask of Redis itself. What they import is in the audit, too."""

from collections import Counter
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Self

from progress_broker.access.audit import AuditEntry, record_once
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import ImportOptions, OperationSource, Outcome, described
from progress_broker.transfer.redis.source import RedisSource
from progress_broker.transfer.redis.target import RedisTarget
from progress_client.operators.admin_over_redis import AdminOverRedis
from progress_client.operators.finding import FinderOverRedis
from progress_client.operators.many import ManyOverRedis


class OverRedis:
    """Asks Redis. `by` is who asks, for the audit."""

    def __init__(self, store: Store, by: str) -> None:
        self._store, self._by = store, by

    @classmethod
    async def open(cls, settings: Settings, by: str) -> Self:
        """Connect; raise `SetupError` if this Redis can't be used, `StorageUnavailable` if it may be later."""
        return cls(await Store.reach(settings), by)

    async def now(self) -> datetime:
        """Return the time by Redis' clock."""
        return await self._store.now()

    @property
    def finder(self) -> FinderOverRedis:
        """What finds operations."""
        return FinderOverRedis(self._store)

    @property
    def many(self) -> ManyOverRedis:
        """What acts on many operations."""
        return ManyOverRedis(self._store, self._by)

    @property
    def admin(self) -> AdminOverRedis:
        """What shows and changes what replicas do."""
        return AdminOverRedis(self._store, self._by)

    def source(self, filters: Filters) -> RedisSource:
        """Return the operations that match."""
        return RedisSource(self._store, filters)

    def target(self) -> "AuditedTarget":
        """Return where operations are stored."""
        return AuditedTarget(self._store, self._by)

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()


class AuditedTarget:
    """Stores operations in Redis, and records that."""

    def __init__(self, store: Store, by: str) -> None:
        self._store, self._by = store, by

    async def store(self, source: OperationSource, options: ImportOptions) -> AsyncGenerator[Outcome]:
        """Store operations; yield what came of each."""
        results: Counter[str] = Counter()
        try:
            async for outcome in RedisTarget(self._store).store(source, options):
                results[outcome.result] += 1
                yield outcome
        finally:
            if results and not options.dry_run:
                entry = AuditEntry(self._by, "redis", "import", "", detail=described(results))
                await record_once(self._store, entry)
