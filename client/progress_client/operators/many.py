"""Acts on many operations, through a server or in Redis itself."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from progress_broker.access.audit import AuditEntry, record_once
from progress_broker.bulk import selection, verbs
from progress_broker.bulk.selection import Selection
from progress_broker.bulk.verbs import Verb
from progress_broker.model.operation import NewSignal
from progress_broker.operations.retention import Keep
from progress_broker.operations.store import Store
from progress_broker.queries.fields import Pairs
from progress_client.operators.finding import FinderOverRedis


class Many(Protocol):
    """What can be done to many operations, and which of them a query chooses."""

    def cancel(self, *, reason: str | None, force: bool) -> Verb:
        """Return what asks workers to stop."""

    def signal(self, sent: NewSignal) -> Verb:
        """Return what sends a signal to workers."""

    def delete(self, *, force: bool) -> Verb:
        """Return what deletes operations."""

    def retain(self, keep: Keep | None) -> Verb:
        """Return what says how long operations are kept."""

    async def select(self, verb: Verb, query: Pairs, most: int) -> Selection:
        """Count what a query chooses for a verb, up to `most` and one more."""

    def found(self, verb: Verb, query: Pairs, away: set[int]) -> AsyncGenerator[Sequence[str]]:
        """Yield the ids of what a query chooses; lanes that can't be reached are added to `away`."""

    async def record(self, verb: Verb, target: str, detail: str) -> None:
        """Record in the audit what was done, unless each single call is there."""


class ManyOverRedis(FinderOverRedis):
    """Acts in Redis. `by` is who does."""

    def __init__(self, store: Store, by: str) -> None:
        super().__init__(store)
        self._by = by

    def cancel(self, *, reason: str | None, force: bool) -> Verb:
        """Return what asks workers to stop."""
        return verbs.cancel(self._store, reason=reason, by=self._by, force=force)

    def signal(self, sent: NewSignal) -> Verb:
        """Return what sends a signal to workers."""
        return verbs.signal(self._store, sent, by=self._by)

    def delete(self, *, force: bool) -> Verb:
        """Return what deletes operations."""
        return verbs.delete(self._store, force=force)

    def retain(self, keep: Keep | None) -> Verb:
        """Return what says how long operations are kept."""
        return verbs.retain(self._store, keep)

    async def select(self, verb: Verb, query: Pairs, most: int) -> Selection:
        """Count what a query chooses."""
        return await selection.select(self._store, selection.filters_for(verb, await self.filters(query)), most)

    async def found(self, verb: Verb, query: Pairs, away: set[int]) -> AsyncGenerator[Sequence[str]]:
        """Yield the ids of what a query chooses."""
        filters = selection.filters_for(verb, await self.filters(query))
        async for ids in selection.found(self._store, filters, away):
            yield ids

    async def record(self, verb: Verb, target: str, detail: str) -> None:
        """Record in the audit what was done."""
        await record_once(self._store, AuditEntry(self._by, "redis", verb.name, target, detail=detail))
