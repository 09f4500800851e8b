"""Each lane's order of creation has all its operations, also those of releases that do not know it.

The sweep compares it with the lane once a minute, and repairs it.
"""

from typing import Any

import pytest

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.operations.commands import create_call, delete_call
from progress_broker.operations.reaper import REPAIR_INTERVAL_S, Reaper
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.broker.test_older_scripts import OLDER
from tests.conftest import make_settings
from tests.servers import eventually


@pytest.fixture
def settings() -> Settings:
    return make_settings(sweep_interval_s=0.02)


async def listed(store: Store) -> set[bytes]:
    """Return the operations that listings find."""
    lanes = map(store.keyspace.lane, range(store.keyspace.lanes))
    return {id for lane in lanes for id in await store.connections.commands.zrange(lane.index, 0, -1)}


async def ordered(store: Store) -> dict[bytes, float]:
    """Return the operations in the orders of creation, and their times."""
    lanes = map(store.keyspace.lane, range(store.keyspace.lanes))
    return {
        id: time
        for lane in lanes
        for id, time in await store.connections.commands.zrange(lane.creation_order, 0, -1, withscores=True)
    }


async def by_older_scripts(store: Store, call: Any) -> None:
    reply = await store.connections.scripts.run(call._replace(script=OLDER[call.script.sha]))
    assert reply[0] == b"ok"


async def created_by_older_scripts(store: Store, *ids: str) -> None:
    for id in ids:
        await by_older_scripts(
            store, create_call(id, store.keyspace.operation(id), NewOperation(id=id), store.settings)
        )


async def test_it_has_an_operation_from_its_creation_to_its_removal(store: Store) -> None:
    redis, at = store.connections.commands, {}
    for id in ("a", "b", "c"):
        operation, _ = await store.create(NewOperation(id=id, kind="job"))
        at[id.encode()] = operation.created_at.timestamp() * 1000
    await redis.hset(store.keyspace.operation("a").snapshot, "listed_ms", "1")
    await store.publish("a", [NewEvent("log", b"{}")])  # listed as changed now
    assert await ordered(store) == pytest.approx(at)
    await store.delete("a", force=True)
    assert await ordered(store) == pytest.approx({id: at[id] for id in (b"b", b"c")})
    keys = store.keyspace.operation("b")
    [member] = [one for one in await redis.zrange(keys.lane.expiry, 0, -1) if one.startswith(b"b\n")]
    await redis.zadd(keys.lane.expiry, {member: 1})
    await redis.hset(keys.snapshot, "expires", "1")
    assert await store.upkeep.sweep() == 1
    assert set(await ordered(store)) == await listed(store) == {b"c"}
    assert await store.upkeep.repair() == 0


async def test_what_older_scripts_created_is_added_and_what_they_deleted_is_removed(store: Store) -> None:
    await created_by_older_scripts(store, "old")
    for id in ("new", "deleted"):
        await store.create(NewOperation(id=id))
    keys = store.keyspace.operation("deleted")
    await by_older_scripts(store, delete_call("deleted", keys, force=True, settings=store.settings))
    assert set(await ordered(store)) == {b"new", b"deleted"}
    # In one lane there are now as many as there should be; any other change of it shows that.
    await created_by_older_scripts(store, *(f"o{i}" for i in range(40)))
    assert await store.upkeep.repair() == 42
    assert set(await ordered(store)) == await listed(store)
    operation = await store.get("old")
    assert (await ordered(store))[b"old"] == pytest.approx(operation.created_at.timestamp() * 1000)
    assert await store.upkeep.repair() == 0


async def test_a_large_lane_is_repaired_in_parts(store: Store) -> None:
    redis, lane = store.connections.commands, store.keyspace.lane(0)
    ids = [id for id in (f"o{i}" for i in range(100_000)) if store.keyspace.lane_of(id) == 0][:1_000]
    async with redis.pipeline(transaction=False) as pipeline:
        for at, id in enumerate(ids):
            pipeline.hset(store.keyspace.operation(id).snapshot, "created", str(1_795_000_000_000 + at))
        pipeline.zadd(lane.index, dict.fromkeys(ids, 1_795_000_009_000))
        pipeline.zadd(lane.creation_order, dict.fromkeys((f"gone{i}" for i in range(1_000)), 1))
        pipeline.zadd(lane.creation_order, {"gone": 1})
        await pipeline.execute()
    assert await store.upkeep.repair() == 2_001
    assert await redis.zrange(lane.creation_order, 0, -1) == [id.encode() for id in ids]
    await redis.delete(*(store.keyspace.operation(id).snapshot for id in ids), lane.index, lane.creation_order)


async def test_the_sweep_repairs_it_once_a_minute(store: Store) -> None:
    now = 1_000.0
    async with Reaper(store, clock=lambda: now) as reaper:

        async def repaired() -> bool:
            return set(await ordered(store)) == await listed(store)

        async def swept() -> bool:
            return reaper.expired > before

        await created_by_older_scripts(store, "a")
        await eventually(repaired, "a server that has started repairs it")
        await created_by_older_scripts(store, "b")
        for _ in range(2):  # sweeps that come before the next minute
            before = reaper.expired
            lane = store.keyspace.lane(0)
            await store.connections.commands.zadd(lane.expiry, {"nobody\n": 1})
            await eventually(swept, "the lanes are swept")
        assert set(await ordered(store)) == {b"a"}
        now += REPAIR_INTERVAL_S
        await eventually(repaired, "it is repaired")
