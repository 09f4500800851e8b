"""What each call costs Redis at most, at the largest sizes: in commands, which do not depend on the machine."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from progress_broker.model.operation import NewOperation, Status
from progress_broker.operations.listing import Filters
from progress_broker.operations.store import Store
from tests.broker.costs import measured
from tests.conftest import make_settings
from tests.servers import RealRedis


@pytest.fixture
async def store(redis_server: RealRedis, redis_url: str) -> AsyncIterator[Store]:
    async with await Store.open(make_settings(redis_url=redis_url)) as store:
        yield store


async def create(store: Store, many: list[NewOperation]) -> None:
    for at in range(0, len(many), 50):
        await asyncio.gather(*(store.create(new) for new in many[at : at + 50]))


@pytest.mark.parametrize("limit", [1, 50, 200])
async def test_a_page_of_filters_that_never_meet(store: Store, limit: int) -> None:
    many = [NewOperation(id=f"{kind}{i}", kind=kind, owner=owner) for i in range(600) for kind, owner in ("ax", "by")]
    await create(store, many)
    async with measured(store.connections.commands) as cost:
        page, cursor = await store.find(Filters(kind="a", owner="y"), limit=limit)
    assert page == []
    assert cost.commands < 1_000
    pages = 1
    while cursor is not None:
        page, cursor = await store.find(Filters(kind="a", owner="y"), limit=limit, cursor=cursor)
        assert page == []
        pages += 1
    assert pages <= 3, "each page goes on from where the one before stopped"


async def test_a_page_of_many_indexes(store: Store) -> None:
    statuses = tuple(Status)
    await create(store, [NewOperation(id=f"o{i}", kind="a", tags=["t"]) for i in range(600)])
    async with measured(store.connections.commands) as cost:
        page, _ = await store.find(Filters(status=statuses), limit=200)
    assert len(page) == 200
    assert cost.commands < 2_500
