import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.errors import InvalidInput
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation, Status
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.list_cursor import read_cursor, write_cursor
from progress_broker.queries.page import find_page


async def fill(store: Store) -> None:
    for i in range(40):
        await store.create(
            NewOperation(id=f"op{i:02}", owner=("alice", "bob")[i % 2], kind=("k", "l", "m")[i % 3], tags=[f"t{i % 4}"])
        )
        if i % 5 == 0:
            await store.publish(f"op{i:02}", [encode("progress", {"current": 1}, store.settings)])


async def every(store: Store, filters: Filters, limit: int) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor, _ = await find_page(store, filters, limit=limit, cursor=cursor)
        found += [operation.id for operation in page]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 7, 200])
async def test_pages_of_any_size_give_each_operation_once_newest_change_first(store: Store, limit: int) -> None:
    await fill(store)
    operations, *_ = await find_page(store, Filters(), limit=200)
    assert sorted(operation.id for operation in operations) == [f"op{i:02}" for i in range(40)]
    assert await every(store, Filters(), limit) == [operation.id for operation in operations]
    times = [operation.updated_at for operation in operations]
    assert times == sorted(times, reverse=True)


async def test_filters_combine(store: Store) -> None:
    await fill(store)
    cases = {
        Filters(owners=("alice",)): lambda i: i % 2 == 0,
        Filters(owners=("alice",), kinds=("k",)): lambda i: i % 6 == 0,
        Filters(tags=("t3",), kinds=("l",)): lambda i: i % 4 == 3 and i % 3 == 1,
        Filters(statuses=frozenset({Status.RUNNING})): lambda i: i % 5 == 0,
        Filters(statuses=frozenset({Status.RUNNING}), owners=("bob",)): lambda i: i % 10 == 5,
        Filters(parent="none"): lambda i: False,
        Filters(kinds=("k", "l"), owners=("bob", "nobody")): lambda i: i % 3 < 2 and i % 2 == 1,
        Filters(ids=("op01", "op03", "op90"), owners=("bob",)): lambda i: i in (1, 3),
        Filters(id_prefix="op1", roots=True): lambda i: 10 <= i < 20,
    }
    for filters, wanted in cases.items():
        found = await every(store, filters, 4)
        assert sorted(found) == [f"op{i:02}" for i in range(40) if wanted(i)], filters


async def test_many_changes_within_a_millisecond_lose_nobody(store: Store) -> None:
    await fill(store)
    for lane in range(store.keyspace.lanes):
        key = store.keyspace.lane(lane).index
        for member in await store.connections.commands.zrange(key, 0, -1):
            await store.connections.commands.zadd(key, {member: 1_700_000_000_000})
    assert sorted(await every(store, Filters(), 3)) == [f"op{i:02}" for i in range(40)]


async def test_an_ended_operation_moves_to_its_new_status(store: Store) -> None:
    await fill(store)
    await store.publish("op00", [encode("end", {"status": "failed"}, store.settings)])
    assert await every(store, Filters(statuses=frozenset({Status.FAILED})), 10) == ["op00"]
    assert "op00" not in await every(store, Filters(statuses=frozenset({Status.RUNNING})), 10)


@pytest.mark.parametrize("cursor", ["x", "!!!", "AAAA", "YWJj", "MTExMTExMTExMTExMTExMTExMTExMTExMTEgYQ=="])
async def test_a_cursor_of_somebody_elses_is_rejected(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidInput):
        await find_page(store, Filters(), cursor=cursor)


@given(st.integers(0, 2**50), st.text(alphabet="abcXYZ019._~-", max_size=128))
def test_a_cursor_reads_as_it_was_written(score: int, operation: str) -> None:
    assert read_cursor(write_cursor((score, operation))) == (score, operation)
