"""Finds operations, at a server or in Redis: pages in an order, and counts."""

from datetime import datetime
from typing import Protocol, Self

from progress_broker.operations.store import Store
from progress_broker.queries.choice import Order
from progress_broker.queries.counts import Counts, count
from progress_broker.queries.fields import Pairs, needs_clock, read_filters
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import Page, find_page
from progress_broker.settings import Settings
from progress_client.address import locate, server_url


class Finder(Protocol):
    """Finds operations. A query is names and texts, as commands and calls take it; times ago are by Redis' clock."""

    async def page(self, query: Pairs, *, order: Order, limit: int, cursor: str | None) -> Page:
        """Return a page of the operations that match, the newest in an order first: 200 at most."""

    async def counts(self, query: Pairs) -> Counts:
        """Return how many operations match, by status."""

    async def now(self) -> datetime:
        """Return the time by the clock that the times of operations are by. Over HTTP it is that of the last answer."""

    async def close(self) -> None:
        """Close the connections."""


class FinderOverRedis:
    """Finds operations in Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect; raise `SetupError` if this Redis can't be used, `StorageUnavailable` if it may be later."""
        return cls(await Store.reach(settings))

    async def page(self, query: Pairs, *, order: Order, limit: int, cursor: str | None) -> Page:
        """Return a page."""
        return await find_page(self._store, await self.filters(query), order=order, limit=limit, cursor=cursor)

    async def counts(self, query: Pairs) -> Counts:
        """Return the counts."""
        return await count(self._store, await self.filters(query))

    async def filters(self, query: Pairs) -> Filters:
        """Return the filters of a query; raise `InvalidInput`."""
        return read_filters(query, round(1000 * (await self._store.now()).timestamp()) if needs_clock(query) else 0)

    async def now(self) -> datetime:
        """Return the time by Redis' clock."""
        return await self._store.now()

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()


async def open_finder(settings: Settings) -> Finder:
    """Connect to the server or to the Redis of the settings; raise `SetupError` or `StorageUnavailable`."""
    if server_url(settings) is not None:
        from progress_client.operators.finding_over_http import FinderOverHttp  # it needs the extra `http`

        return FinderOverHttp(settings)
    return await FinderOverRedis.open(locate(settings))
