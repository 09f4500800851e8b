"""A server on a Cluster whose slots move and whose masters fail: what concerns no such slot goes on, the rest waits."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import count

import pytest

from progress_broker import errors
from progress_broker.hub import Hub
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Publish, Published
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.delivery import Start
from tests.broker.harness import Outlet
from tests.conftest import make_settings
from tests.servers import eventually
from tests.topologies.binaries import SERVERS
from tests.topologies.cluster import Cluster, Migration
from tests.topologies.kinds import ALL_BACKENDS
from tests.topologies.topology import LANES, do

TIMEOUT_S = 5.0


@pytest.fixture(scope="module", params=SERVERS if ALL_BACKENDS in os.environ else SERVERS[:1])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("replicated"), replicas=1, server=request.param) as cluster:
        yield cluster


@pytest.fixture
def settings(cluster: Cluster) -> Settings:
    cluster.flush()
    return make_settings(redis_url=cluster.url, redis_timeout_s=TIMEOUT_S, probe_interval_s=0.1)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with await Store.open(settings) as store:
        assert store.keyspace.lanes == LANES
        yield store


@pytest.fixture
async def hub(store: Store, settings: Settings) -> AsyncIterator[Hub]:
    async with Hub(store, settings) as hub:
        await hub.started()
        yield hub


async def operation_in(store: Store, lane: int) -> str:
    """Create an operation in a lane."""
    id = next(id for number in count() if store.keyspace.lane_of(id := f"operation-{number}") == lane)
    await store.create(NewOperation(id=id))
    return id


async def watch(hub: Hub, operation: str) -> Outlet:
    subscription = await hub.subscribe(operation, Start())
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    return outlet


def line(message: str) -> NewEvent:
    return encode("log", {"message": message}, make_settings())


class Publisher:
    """Publishes one line after the other to an operation, each until it is stored. Keeps the longest time that took."""

    def __init__(self, store: Store, operation: str) -> None:
        self.store, self.operation = store, operation
        self.stored = 0
        self.longest_s = 0.0
        self.failures: list[errors.StorageUnavailable] = []
        self._stopping = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            while True:
                entry = line(str(self.stored)).numbered("p", self.stored + 1)
                try:
                    (answer,) = await self.store.publish_many([Publish(self.operation, [entry])])
                except errors.StorageUnavailable as error:
                    answer = error
                if isinstance(answer, Published):
                    break
                assert isinstance(answer, errors.StorageUnavailable), answer
                self.failures.append(answer)
                await asyncio.sleep(0.01)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.stored += 1
            await asyncio.sleep(0.01)

    async def more(self, many: int = 5) -> None:
        """Wait until more is stored."""
        wanted = self.stored + many
        await eventually(lambda: self.stored >= wanted or self._task.done(), f"{many} more lines are stored")
        assert not self._task.done(), self._task.exception()

    async def stop(self) -> None:
        """Stop after the line that is on its way, which may be stored by now."""
        self._stopping = True
        await self._task


async def test_a_slot_moves_key_by_key_while_it_is_published_to_and_watched(
    cluster: Cluster, store: Store, hub: Hub
) -> None:
    id = await operation_in(store, 0)
    outlet = await watch(hub, id)
    publisher = Publisher(store, id)
    await publisher.more()
    moving = Migration(cluster, cluster.slot_of_lane(0))
    moving.begin()
    listings_first = sorted(moving.keys(), key=lambda key: b":op:" in key)
    moving.move(listings_first[:-2])
    await eventually(lambda: publisher.failures, "publishing waits, and then fails")
    assert isinstance(publisher.failures[0], errors.SlotMoving)
    assert (await store.get(id)).events > publisher.stored  # reading goes on
    moving.move(listings_first[-2:])
    assert (await store.get(id)).events > publisher.stored
    moving.settle()
    await publisher.more()
    assert await asyncio.to_thread(cluster.move_slot, 0) is moving.source  # and back, as fast as it goes
    await publisher.more()
    await publisher.stop()
    assert {type(failure) for failure in publisher.failures} == {errors.SlotMoving}
    assert {feed.interruptions for feed in hub.feeds} == {0}
    n = (await store.get(id)).events
    await eventually(lambda: outlet.numbers[-1] == n, "all is told")
    assert outlet.numbers == [-1, *range(2, n + 1)], "in order, and without a reset"
    assert n == publisher.stored + 1


async def test_a_planned_failover_costs_a_moment_and_loses_nothing(cluster: Cluster, store: Store, hub: Hub) -> None:
    id = await operation_in(store, 5)
    outlet = await watch(hub, id)
    publisher = Publisher(store, id)
    await publisher.more()
    await asyncio.to_thread(cluster.failover, 5, planned=True)
    await publisher.more()
    await publisher.stop()
    n = (await store.get(id)).events
    assert n == publisher.stored + 1
    await eventually(lambda: outlet.numbers[-1] == n, "all is told")
    assert [number for number in outlet.numbers if number > 0] == list(range(2, n + 1))


async def test_scripts_that_one_node_forgot_are_loaded_there(cluster: Cluster, store: Store) -> None:
    ids = [await operation_in(store, lane) for lane in range(LANES)]
    do(cluster.of_lane(0), "SCRIPT", "FLUSH")
    await asyncio.gather(*(store.publish(id, [line("m")]) for id in ids))
    assert {(await store.get(id)).events for id in ids} == {2}


async def test_a_master_that_hangs_costs_its_own_lanes_only_and_is_replaced(
    cluster: Cluster, store: Store, hub: Hub
) -> None:
    hit, well = 10, next(lane for lane in range(LANES) if cluster.of_lane(lane) is not cluster.of_lane(10))
    there, here = await operation_in(store, hit), await operation_in(store, well)
    outlet = await watch(hub, there)
    publishers = [Publisher(store, there), Publisher(store, here)]
    await publishers[0].more()
    old = cluster.of_lane(hit)
    cluster.stop(old)
    try:
        await eventually(lambda: cluster.of_lane(hit) is not old, "its replica is promoted")
        await publishers[0].more()
        await eventually(lambda: hub.connected, "all lanes are read again")
    finally:
        cluster.cont(old)
    for publisher in publishers:
        await publisher.stop()
    assert publishers[1].failures == []
    assert publishers[1].longest_s < TIMEOUT_S
    waited = [failure for failure in publishers[0].failures if isinstance(failure, errors.LaneAway)]
    assert len(waited) >= len(publishers[0].failures) - 2, "only the first ones wait for its answer"
    n = (await store.get(there)).events
    await eventually(lambda: outlet.numbers[-1] == n, "all is told")
    await eventually(lambda: len(cluster.replicas_of(cluster.of_lane(hit))) == 1, "the old master follows")


async def test_a_node_that_answers_late_keeps_no_other_lane_back(cluster: Cluster, store: Store) -> None:
    hit, well = 10, next(lane for lane in range(LANES) if cluster.of_lane(lane) is not cluster.of_lane(10))
    ids = [await operation_in(store, hit), await operation_in(store, well)]
    node = cluster.of_lane(hit)
    do(node, "CLIENT", "PAUSE", 600_000, "WRITE")
    try:
        late, stored = await store.publish_many([Publish(id, [line("m").numbered("p", 1)]) for id in ids])
        assert (await store.get(ids[0])).events == 1, "it is late, and not away"
    finally:
        do(node, "CLIENT", "UNPAUSE")
    assert isinstance(stored, Published)
    assert isinstance(late, errors.LaneAway)
    assert "does not answer yet" in late.detail, "it was not waited for until the timeout"

    async def is_stored() -> bool:
        with suppress(errors.LaneAway):  # until its node has answered again
            return (await store.get(ids[0])).events == 2
        return False

    await eventually(is_stored, "it runs once the node goes on")


async def test_a_node_that_hangs_is_not_waited_for_also_if_it_has_all_of_a_request(
    cluster: Cluster, store: Store
) -> None:
    id = await operation_in(store, 10)
    node = cluster.of_lane(10)
    cluster.stop(node)
    try:
        for _ in range(2):
            (answer,) = await store.publish_many([Publish(id, [line("m").numbered("p", 1)])])
            assert isinstance(answer, errors.LaneAway), "it is the answer of this operation: others may be sent"
            assert "does not answer yet" in answer.detail
    finally:
        cluster.cont(node)


async def test_a_master_that_dies_costs_its_own_lanes_only_and_is_replaced(
    cluster: Cluster, store: Store, hub: Hub
) -> None:
    hit, well = 15, next(lane for lane in range(LANES) if cluster.of_lane(lane) is not cluster.of_lane(15))
    there, here = await operation_in(store, hit), await operation_in(store, well)
    outlet = await watch(hub, there)
    publishers = [Publisher(store, there), Publisher(store, here)]
    await publishers[0].more()
    await asyncio.to_thread(cluster.failover, hit, planned=False)
    await publishers[0].more()
    for publisher in publishers:
        await publisher.stop()
    assert publishers[1].failures == []
    assert publishers[1].longest_s < TIMEOUT_S
    n = (await store.get(there)).events
    await eventually(lambda: outlet.numbers[-1] == n, "all is told")
    await eventually(lambda: hub.connected, "all lanes are read again")


async def test_a_slot_that_moves_at_once_is_hardly_noticed(cluster: Cluster, store: Store, hub: Hub) -> None:
    if not cluster.is_atomic:
        pytest.skip("this server moves slots key by key")
    id = await operation_in(store, 3)
    outlet = await watch(hub, id)
    publisher = Publisher(store, id)
    await publisher.more()
    await asyncio.to_thread(cluster.move_slot, 3, atomic=True)
    await publisher.more()
    await publisher.stop()
    assert publisher.failures == []
    n = (await store.get(id)).events
    await eventually(lambda: outlet.numbers[-1] == n, "all is told")
    assert outlet.numbers == [-1, *range(2, n + 1)], "in order, and without a reset"
