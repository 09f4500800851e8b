"""What is asked of more than one server at a time, and that the double of a Cluster refuses what a Cluster refuses."""

import pytest

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation, NewSignal, Status
from progress_broker.operations.store import Store
from progress_broker.storage.masters import Masters
from progress_broker.workers.signals import signals_after

MIB = 1 << 20


@pytest.fixture
def backend() -> str:
    return "shards"


@pytest.fixture
async def one_a_server(store: Store) -> list[str]:
    """The ids of an operation in each server's lanes."""
    feeds = {store.keyspace.lane(lane).feed: lane for lane in range(store.keyspace.lanes)}
    nodes = [{feeds[key] for key in node.keys} for node in store.connections.by_node(list(feeds))]
    ids = (f"operation-{number}" for number in range(1000))
    return [next(id for id in ids if store.keyspace.lane_of(id) in lanes) for lanes in nodes]


async def test_each_server_has_a_part_of_the_lanes(store: Store, one_a_server: list[str]) -> None:
    assert len(one_a_server) == 2
    for id in one_a_server:
        await store.create(NewOperation(id=id))
    masters = await store.connections.masters()
    for id, master, other in zip(one_a_server, masters, reversed(masters), strict=True):
        assert await master.exists(store.keyspace.operation(id).snapshot)
        assert not await other.exists(store.keyspace.operation(id).snapshot)


async def test_keys_of_several_slots_and_commands_without_one_are_refused(
    store: Store, one_a_server: list[str]
) -> None:
    commands = store.connections.commands
    keys = [store.keyspace.operation(id).snapshot for id in one_a_server]
    with pytest.raises(AssertionError, match="CROSSSLOT"):
        await commands.delete(*keys)
    with pytest.raises(AssertionError, match="CROSSSLOT"):
        await commands.execute_command("XREAD", "STREAMS", *keys, "0-0", "0-0")
    with pytest.raises(AssertionError, match="names no key"):
        await commands.info()
    assert await commands.time()


async def test_signals_of_operations_on_each_server_are_read_at_once(store: Store, one_a_server: list[str]) -> None:
    for id in one_a_server:
        await store.create(NewOperation(id=id))
        await store.signal(id, NewSignal(type="pause"))
    found = await signals_after(store.connections, store.keyspace, dict.fromkeys(one_a_server, (0, 0)))
    assert sorted(signal.operation for signal in found) == sorted(one_a_server)


async def test_leases_expire_on_each_server(store: Store, one_a_server: list[str]) -> None:
    for id in one_a_server:
        await store.create(NewOperation(id=id))
        await store.publish(id, [NewEvent("status", b'{"status":"running","attempt":1}', "running")], attempt=1)
        await store.connections.commands.zadd(store.keyspace.operation(id).lane.leases, {id: 1})
    assert sorted(await store.upkeep.expired_leases()) == [(id, Status.RUNNING) for id in sorted(one_a_server)]


async def test_the_fullest_server_is_shown(store: Store) -> None:
    masters = Masters(store.connections)
    first, second = await store.connections.masters()
    try:
        await first.config_set("maxmemory", 900 * MIB)
        await second.config_set("maxmemory", 500 * MIB)
        await masters.refresh()
        assert masters.memory_max == 500 * MIB
        assert 0 < masters.memory_used < 500 * MIB
        await second.config_set("maxmemory", 0)
        await masters.refresh()
        assert masters.memory_max == 900 * MIB
    finally:
        await first.config_set("maxmemory", 0)
        await second.config_set("maxmemory", 0)
