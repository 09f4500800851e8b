"""Finds operations at a server."""

from typing import TypeVar

from pydantic import BaseModel

from progress_broker.model.operation import Operation, Status
from progress_broker.queries.choice import Order
from progress_broker.queries.counts import Counts
from progress_broker.queries.fields import Pairs
from progress_broker.queries.page import Page
from progress_client.http.connection import AsyncConnection, Query
from progress_client.http.problems import read_answer

M = TypeVar("M", bound=BaseModel)

OPERATIONS = "/v1/operations"


class _Listing(BaseModel):
    operations: list[Operation]
    next_cursor: str | None
    lanes_away: list[int] = []


class _Counted(BaseModel):
    counts: dict[Status, int]
    approximate: bool
    lanes_away: list[int] = []


class FinderOverHttp:
    """Asks a server."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def page(self, query: Pairs, *, order: Order, limit: int, cursor: str | None) -> Page:
        """Return a page."""
        more = [("sort", order.value), ("limit", str(limit)), *([("cursor", cursor)] if cursor else [])]
        page = await self._get(OPERATIONS, [*query, *more], _Listing)
        return Page(page.operations, page.next_cursor, page.lanes_away)

    async def counts(self, query: Pairs) -> Counts:
        """Return the counts."""
        found = await self._get(f"{OPERATIONS}/counts", query, _Counted)
        return Counts(found.counts, found.approximate, found.lanes_away)

    async def _get(self, path: str, query: Query, model: type[M]) -> M:
        answer = await self._connection.request("GET", path, query=query, repeatable=True)
        return read_answer(self._connection.url, answer.body, model.model_validate)
