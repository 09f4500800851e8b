"""What each call costs Redis at most, at the largest sizes: in commands, which do not depend on the machine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from progress_broker.history import event_log
from progress_broker.model.children import MAX_SHOWN
from progress_broker.model.entry import encode
from progress_broker.model.operation import MAX_TAGS, Children, NewOperation, Status
from progress_broker.operations import index_search
from progress_broker.operations.commands import publish_call
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.rollup import Rollups
from progress_broker.operations.store import Store
from progress_broker.queries.choice import Order
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.storage.scripts import SCHEMA
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


async def test_a_page_of_filters_that_never_meet(store: Store) -> None:
    many = [NewOperation(id=f"{kind}{i}", kind=kind, owner=owner) for i in range(600) for kind, owner in ("ax", "by")]
    await create(store, many)
    for limit in (1, 50, 200):
        async with measured(store.connections.commands) as cost:
            page, cursor, _ = await find_page(store, Filters(kinds=("a",), owners=("y",)), limit=limit)
        assert page == []
        assert cost.commands < 1_000
        pages = 1
        while cursor is not None:
            page, cursor, _ = await find_page(store, Filters(kinds=("a",), owners=("y",)), limit=limit, cursor=cursor)
            assert page == []
            pages += 1
        assert pages <= 3, "each page goes on from where the one before stopped"


async def test_a_page_of_many_indexes(store: Store) -> None:
    await create(store, [NewOperation(id=f"o{i}", kind="a", tags=["t"]) for i in range(600)])
    async with measured(store.connections.commands) as cost:
        page, *_ = await find_page(store, Filters(statuses=frozenset(Status)), limit=200)
    assert len(page) == 200
    assert cost.commands < 2_500


MANY_RUNNING = """
local function text(number) return string.format('%.0f', number) end
local index, operations, indexes = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
for at, i in ipairs(cjson.decode(ARGV[4])) do
  redis.call('HSET', operations .. 'o' .. i, 'schema', ARGV[5], 'status', 'running', 'position', '1795000000000-1',
    'n', '1', 'spec', '{"kind":"job","owner":"ann","title":"T' .. i .. '"}',
    'created', text(1795000000000 + math.floor(i / 3)), 'indexes', table.concat(indexes, '\\n'))
  local keys = {index, index .. ':order:created', index .. ':status:running'}
  for _, name in ipairs(indexes) do keys[#keys + 1] = index .. ':' .. name end
  for _, key in ipairs(keys) do redis.call('ZADD', key, 1795000000000 + math.floor(i / 3), 'o' .. i) end
end
"""


async def many_running(store: Store, number: int, indexes: tuple[str, ...]) -> None:
    """Write operations as they look while they run, which is faster than creating them."""
    lanes: dict[int, list[int]] = {}
    for i in range(number):
        lanes.setdefault(store.keyspace.lane_of(f"o{i}"), []).append(i)
    for number, members in lanes.items():
        lane = store.keyspace.lane(number)
        given = [lane.index, lane.operations, orjson.dumps(indexes), orjson.dumps(members), SCHEMA]
        await store.connections.commands.eval(MANY_RUNNING, 0, *given)


async def test_a_page_of_a_large_store(store: Store) -> None:
    await many_running(store, 40_000, ("kind:job", "owner:ann"))
    redis = store.connections.commands
    for i in range(0, 40_000, 100):
        await redis.zadd(store.keyspace.operation(f"o{i}").lane.index_of("kind", "rare"), {f"o{i}": 1795000000000 + i})
    two = Filters(kinds=("job",), owners=("ann",), statuses=frozenset(Status))
    none = (Filters(kinds=("job",), tags=("no",)), Filters(text="nothing"), Filters(worker="w", roots=True))
    for filters in (Filters(), Filters(kinds=("rare",)), two, *none):
        for order in (Order.CHANGED, Order.CREATED):
            async with measured(redis) as cost:
                page = await find_page(store, filters, order=order, limit=50)
            assert len(page.operations) == (50 if filters in (Filters(), two) else 0), "a rare kind is only an index"
            assert cost.commands / max(1, cost.scripts) < 1_000
            assert cost.commands < 16_000, (filters, order)
            assert cost.scripts <= 6 * store.keyspace.lanes


async def test_a_search_that_finds_too_many(store: Store) -> None:
    await many_running(store, 40_000, ("kind:job", "owner:ann"))
    lanes = range(store.keyspace.lanes)
    for since in ({}, dict.fromkeys(lanes, b"1-0")):
        async with measured(store.connections.commands) as cost:
            found = await index_search.by_terms(store, frozenset({b"kind:job", b"owner:ann"}), since, lanes, 1_001)
        assert len(found.operations) > 1_001
        assert cost.commands / cost.scripts < 800
        assert cost.scripts <= 2 * len(lanes)


async def test_a_search_in_large_indexes_looks_at_a_part_at_a_time_and_misses_none(store: Store) -> None:
    await many_running(store, 16_000, ("kind:job", "owner:ann"))
    client, wanted = store.connections.commands, {f"o{i}" for i in range(0, 16_000, 500)}
    for id in wanted:
        await client.zadd(store.keyspace.operation(id).lane.index_of("tag", "t"), {id: 1})
    for lane in range(store.keyspace.lanes):
        await client.zadd(store.keyspace.lane(lane).index_of("tag", "t"), {f"x{i}": 2 for i in range(1_000)})
    for id in sorted(wanted)[::2]:
        await client.hset(store.keyspace.operation(id).snapshot, "status", "succeeded")
    lanes = range(store.keyspace.lanes)
    ended = set(sorted(wanted)[::2])
    for since, expected in (({}, wanted - ended), (dict.fromkeys(lanes, b"1-0"), wanted)):
        async with measured(client) as cost:
            found = await index_search.by_terms(store, frozenset({b"kind:job", b"tag:t"}), since, lanes, 1_001)
        assert {facts.operation for facts in found.operations} == expected
        assert cost.commands / cost.scripts < 800


async def test_a_look_for_what_is_due_costs_two_round_trips_if_nothing_is(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    await store.publish("a", [encode("progress", {"percent": 1}, store.settings)])
    for _ in range(2):  # scripts are loaded by the first
        async with measured(store.connections.commands) as cost:
            assert (await store.upkeep.sweep(), await store.upkeep.expired_leases()) == (0, [])
    assert cost.scripts == 1
    assert cost.commands <= 2 * (store.keyspace.lanes + 1) + 1 + 20, "a plain command for each lane"


async def test_a_sweep_removes_all_that_is_due_a_part_at_a_time(store: Store) -> None:
    lane = store.keyspace.lane(0)
    tags = "\n".join(f"tag:{i}" for i in range(MAX_TAGS))
    client = store.connections.commands
    await client.zadd(lane.expiry, {f"o{i}\nkind:job\n{tags}": 1 for i in range(3_000)})
    await client.zadd(lane.index, {f"o{i}": 1 for i in range(3_000)})
    async with measured(client) as cost:
        assert await store.upkeep.sweep() == 3_000
    assert cost.commands / cost.scripts < 50 * (MAX_TAGS + 20)
    assert await client.zcard(lane.index) == 0


async def test_all_leases_that_expire_at_once_are_acted_on_at_once(store: Store) -> None:
    many = 250  # of one lane; one look finds 200
    ids = [id for id in (f"o{i}" for i in range(100 * many)) if store.keyspace.lane_of(id) == 0][:many]
    await create(store, [NewOperation(id=id, lease_s=0.001) for id in ids])
    for id in ids:
        await store.publish(id, [encode("progress", {"percent": 1}, store.settings)])
    reaper = Reaper(store)
    await reaper.reap()
    assert reaper.stalled == many


async def family_of(store: Store, number: int) -> None:
    await store.create(NewOperation(id="p"))
    await store.publish("p", [encode("progress", {"message": "m"}, store.settings)])
    await create(store, [NewOperation(id=f"c{i}", parent="p") for i in range(number)])


async def test_a_large_family_is_read_once_in_a_while(store: Store) -> None:
    await family_of(store, 300)
    now = 0.0
    store.rollups = Rollups(store.connections, store.keyspace, lambda: now)
    first = await asyncio.gather(*(store.get("p") for _ in range(5)))
    async with measured(store.connections.commands) as cost:
        again = await store.get("p", list_children=True)
    assert isinstance(again.children, Children)
    assert len(again.children.operations) == MAX_SHOWN
    assert cost.scripts == 0
    assert {operation.children.total for operation in (*first, again) if operation.children} == {300}
    await store.create(NewOperation(id="new", parent="p"))
    now += 0.1
    shown = (await store.get("p")).children
    assert shown is not None
    assert shown.total == 301


async def test_a_parent_of_many_is_cancelled_in_few_round_trips(store: Store) -> None:
    await family_of(store, 500)
    calls = 0
    execute = store.connections.commands.connection_pool.get_connection

    async def counted(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        return await execute(*args, **more)

    store.connections.commands.connection_pool.get_connection = counted
    async with measured(store.connections.commands) as cost:
        await store.cancel("p")
    assert calls < 60, "a round trip for 50 children, three times"
    assert cost.scripts < 550
    assert cost.commands < 30 * 500
    page, *_ = await find_page(store, Filters(statuses=frozenset({Status.CANCELLED})), limit=200)
    assert len(page) == 200


async def test_a_page_of_history_is_read_in_parts(store: Store) -> None:
    await store.create(NewOperation(id="a", history_length=1_000))
    event = encode("log", {"message": "x" * 60_000}, store.settings)
    for _ in range(110):
        await store.publish("a", [event] * 10)
    first = (await event_log.kept(store, "a", 1))[0].position.decode()
    for read in (event_log.kept, lambda *given: event_log.after(*given[:2], first, 1_000)):
        async with measured(store.connections.commands) as cost:
            await read(store, "a", 1_000)
        assert cost.commands / max(1, cost.scripts) < 40
        assert cost.sent_bytes < 15_000_000, "not the 60 MB that are there"


async def test_what_an_event_has_to_follow_is_read_with_what_is_read_anyway(store: Store) -> None:
    await store.create(NewOperation(id="a", lease_s=15))
    keys, lines = store.keyspace.operation("a"), iter(range(1, 100))

    async def cost_of(*, heartbeat: bool, follows: bool) -> int:
        seq = 0 if heartbeat else next(lines)
        entries = [] if heartbeat else [encode("log", {"message": "m"}, store.settings, producer="p", seq=seq)]
        after = ("p", 3 if heartbeat else seq - 1) if follows else None
        call = publish_call("a", keys, entries, after=after)
        async with measured(store.connections.commands) as cost:
            assert (await store.connections.scripts.run(call))[0] == b"ok"
        return cost.commands

    for _ in range(3):  # the first ones also write what is written once a second
        await cost_of(heartbeat=False, follows=True)
    for heartbeat in (False, True):
        plain, following = [
            min([await cost_of(heartbeat=heartbeat, follows=it) for _ in range(5)]) for it in (False, True)
        ]
        assert following == plain + heartbeat
