"""Finds operations, at a server or in Redis: pages in an order, and counts."""

from typing import Protocol

from progress_broker.operations.store import Store
from progress_broker.queries.choice import Order
from progress_broker.queries.counts import Counts, count
from progress_broker.queries.fields import Pairs, needs_clock, read_filters
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import Page, find_page


class Finder(Protocol):
    """Finds operations. A query is names and texts, as commands and calls take it; times ago are by Redis' clock."""

    async def page(self, query: Pairs, *, order: Order, limit: int, cursor: str | None) -> Page:
        """Return a page of the operations that match, the newest in an order first: 200 at most."""

    async def counts(self, query: Pairs) -> Counts:
        """Return how many operations match, by status."""


class FinderOverRedis:
    """Finds operations in Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, query: Pairs, *, order: Order, limit: int, cursor: str | None) -> Page:
        """Return a page."""
        return await find_page(self._store, await self.filters(query), order=order, limit=limit, cursor=cursor)

    async def counts(self, query: Pairs) -> Counts:
        """Return the counts."""
        return await count(self._store, await self.filters(query))

    async def filters(self, query: Pairs) -> Filters:
        """Return the filters of a query; raise `InvalidInput`."""
        return read_filters(query, round(1000 * (await self._store.now()).timestamp()) if needs_clock(query) else 0)
