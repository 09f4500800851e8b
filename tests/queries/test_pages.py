"""Pages in each order have what matches, each operation once, whatever scripts leave out."""

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from progress_broker.errors import InvalidInput
from progress_broker.model.entry import encode
from progress_broker.model.operation import TERMINAL, NewOperation, Operation, Status
from progress_broker.operations.store import Store
from progress_broker.queries import page as pages
from progress_broker.queries.choice import Order
from progress_broker.queries.filters import Filters
from progress_broker.queries.list_cursor import write_cursor
from progress_broker.queries.page import find_page
from tests.queries.examples import all_of, fill, filters, holds


async def every(store: Store, filters: Filters, order: Order, limit: int) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor, _ = await find_page(store, filters, order=order, limit=limit, cursor=cursor)
        found += [operation.id for operation in page]
        assert len(page) <= limit
        if cursor is None:
            return found


async def listed(store: Store) -> dict[str, float]:
    """Return when each operation was listed as changed."""
    redis, keyspace = store.connections.commands, store.keyspace
    found = [await redis.zrange(keyspace.lane(lane).index, 0, -1, withscores=True) for lane in range(keyspace.lanes)]
    return {id.decode(): ms for lane in found for id, ms in lane}


def ms(time: object) -> float:
    return round(time.timestamp() * 1000)  # type: ignore[attr-defined]


async def test_a_page_has_all_that_matches_in_its_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store)
    operations = await all_of(store)
    changed = await listed(store)
    assert len(operations) == len(changed)
    times: dict[Order, Callable[[Operation], float]] = {
        Order.CHANGED: lambda it: changed[it.id],
        Order.CREATED: lambda it: ms(it.created_at),
        Order.ENDED: lambda it: ms(it.finished_at),
    }

    async def check(given: Filters, order: Order, limit: int, looked: int) -> None:
        if order is Order.ENDED and not given.statuses <= TERMINAL:
            return
        monkeypatch.setattr(pages, "_LOOKED", looked)
        monkeypatch.setattr(pages, "_LOOKED_IN_LANE", looked)
        wanted = [it for it in operations if given.match(it) and (order is not Order.ENDED or it.done)]
        wanted.sort(key=lambda it: (times[order](it), it.id), reverse=True)
        assert await every(store, given, order, limit) == [it.id for it in wanted]

    orders, limits, looked = st.sampled_from(Order), st.sampled_from((1, 5, 200)), st.sampled_from((3, 4_000))
    await holds(check, filters(operations), orders, limits, looked, examples=150)


@pytest.mark.parametrize("order", Order)
async def test_a_page_goes_on_where_the_one_before_stopped_while_operations_change(store: Store, order: Order) -> None:
    ids = [f"o{i:02}" for i in range(60)]
    for id in ids:
        await store.create(NewOperation(id=id))
        await store.publish(id, [encode("end", {"status": "failed"}, store.settings)])
    found: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor, _ = await find_page(store, Filters(), order=order, limit=7, cursor=cursor)
        found += [operation.id for operation in page]
        if cursor is None:
            break
        await store.create(NewOperation(id=f"new{len(found)}"))
        await store.delete(found[-1])
    assert found == ids[::-1]


async def test_operations_of_one_millisecond_are_each_found_once(store: Store) -> None:
    redis, ids = store.connections.commands, [f"{letter}{i}" for i in range(100) for letter in "aA-_"[: 1 + i % 2]]
    for id in ids:
        await store.create(NewOperation(id=f"x{id}", kind="k" if len(id) % 2 else "l"))
        lane = store.keyspace.operation(f"x{id}").lane
        for key in (lane.index, lane.creation_order, lane.index_of("kind", "k" if len(id) % 2 else "l")):
            await redis.zadd(key, {f"x{id}": 1_700_000_000_000})
    for order in (Order.CHANGED, Order.CREATED):
        for given in (Filters(), Filters(kinds=("k", "l"))):
            assert await every(store, given, order, 3) == sorted((f"x{id}" for id in ids), reverse=True)


async def test_a_cursor_belongs_to_its_order(store: Store) -> None:
    for i in range(3):
        await store.create(NewOperation(id=f"o{i}"))
    cursors = {}
    for order in (Order.CHANGED, Order.CREATED):
        cursors[order] = (await find_page(store, Filters(), order=order, limit=1)).next_cursor
        page = await find_page(store, Filters(), order=order, limit=1, cursor=cursors[order])
        assert [it.id for it in page.operations] == ["o1"]
    with pytest.raises(InvalidInput, match="sort"):
        await find_page(store, Filters(), order=Order.CHANGED, cursor=cursors[Order.CREATED])
    with pytest.raises(InvalidInput, match="sort"):
        await find_page(store, Filters(), order=Order.ENDED, cursor=cursors[Order.CHANGED])
    assert write_cursor((17, "a")) == "MTcgYQ==", "as releases wrote it that knew one order"


async def test_the_order_of_the_end_has_only_what_ended(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    await store.create(NewOperation(id="b"))
    await store.publish("a", [encode("end", {"status": "failed"}, store.settings)])
    assert await every(store, Filters(), Order.ENDED, 5) == ["a"]
    with pytest.raises(InvalidInput, match="only operations that ended"):
        await find_page(store, Filters(statuses=frozenset({Status.RUNNING})), order=Order.ENDED)
