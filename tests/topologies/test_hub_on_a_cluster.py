"""A replica before a real Cluster: its feeds follow slots that move, and a node that is away costs its lanes only."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from progress_broker.hub import Hub
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.settings import Settings
from progress_broker.stream.delivery import Start
from progress_broker.stream.subscription import Subscription
from tests.broker.harness import Outlet
from tests.conftest import make_settings
from tests.servers import eventually
from tests.topologies.cluster import Cluster
from tests.topologies.topology import LANES, do


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two masters, each with a replica."""
    with Cluster(tmp_path, masters=2, replicas=1) as cluster:
        yield cluster


@pytest.fixture
def settings(cluster: Cluster) -> Settings:
    return make_settings(redis_url=cluster.url, redis_timeout_s=5, probe_interval_s=1, lanes=LANES)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with await Store.open(settings) as store:
        yield store


@pytest.fixture
async def hub(store: Store) -> AsyncIterator[Hub]:
    async with Hub(store, store.settings) as hub:
        await hub.started()
        yield hub


def id_in(store: Store, lanes: range | set[int]) -> str:
    return next(id for id in map("operation-{}".format, count()) if store.keyspace.lane_of(id) in lanes)


async def watch(hub: Hub, operation: str) -> tuple[Outlet, Subscription]:
    subscription = await hub.subscribe(operation, Start())
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    return outlet, subscription


async def test_a_feed_whose_slot_moves_is_read_on_without_an_interruption(
    store: Store, hub: Hub, cluster: Cluster
) -> None:
    lane = 3
    id = id_in(store, {lane})
    await store.create(NewOperation(id=id))
    line = encode("log", {"message": "m"}, store.settings)
    await store.publish(id, [line])
    outlet, subscription = await watch(hub, id)
    await store.publish(id, [line])
    await eventually(lambda: outlet.numbers == [-2, 3], "it is live")
    await asyncio.to_thread(cluster.move_slot, lane)
    await store.publish(id, [line])
    await eventually(lambda: outlet.numbers == [-2, 3, 4], "it goes on")
    feed = next(feed for feed in hub.feeds if feed.lanes == (lane,))
    assert (feed.moves, feed.interruptions) == (1, 0)
    await eventually(lambda: not hub.lanes_away, "all is proved")
    subscription.close()


async def test_a_planned_failover_loses_nobody_an_event_and_the_new_master_is_checked(
    store: Store, hub: Hub, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await eventually(lambda: (hub.masters.failovers, hub.masters.unsuitable) == (0, 0), "the first ones are checked")
    [replica] = cluster.replicas_of(cluster.of_lane(0))
    do(replica, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    id = id_in(store, {0})
    await store.create(NewOperation(id=id))
    outlet, subscription = await watch(hub, id)
    line, published = encode("log", {"message": "m"}, store.settings), 1
    moving = asyncio.create_task(asyncio.to_thread(cluster.failover, 0, planned=True))
    while not moving.done():
        published = (await store.publish(id, [line])).events
        await asyncio.sleep(0.01)
    await moving
    await store.publish(id, [line])
    await eventually(lambda: outlet.numbers[-1] == published + 1, "all is told")
    assert outlet.numbers == [-1, *range(2, published + 2)]
    await eventually(lambda: not hub.lanes_away, "all is proved")
    subscription.close()
    await eventually(lambda: (hub.masters.failovers, hub.masters.unsuitable) == (1, 1), "the new one is checked")
    [told] = [it.getMessage() for it in caplog.records if "does not fit" in it.getMessage()]
    assert f"127.0.0.1:{replica.port} " in told
    assert "set maxmemory-policy noeviction" in told


async def test_a_master_that_joins_is_checked_once_it_has_a_lane(store: Store, hub: Hub, cluster: Cluster) -> None:
    await eventually(lambda: hub.masters.unsuitable == 0, "the first ones are checked")
    [joining] = cluster.replicas_of(cluster.of_lane(0))
    do(joining, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await asyncio.to_thread(cluster.join_as_master, joining)
    await asyncio.to_thread(cluster.move_slot, 0, to=joining)
    await eventually(lambda: hub.masters.unsuitable == 1, "it is checked")
    assert hub.masters.failovers == 0


async def test_a_master_that_is_killed_costs_its_lanes_until_its_replica_takes_over(
    store: Store, hub: Hub, cluster: Cluster
) -> None:
    here, there = id_in(store, {LANES - 1}), id_in(store, {0})
    for id in (here, there):
        await store.create(NewOperation(id=id))
    (well, one), (cut, other) = await watch(hub, here), await watch(hub, there)
    await eventually(lambda: not hub.lanes_away, "all is proved")
    master = cluster.of_lane(0)
    [replica] = cluster.replicas_of(master)
    await hub.masters.refresh()
    assert hub.masters.without_replica == 0
    cluster.kill(replica)  # nobody takes over

    async def is_alone() -> bool:
        await hub.masters.refresh()
        return hub.masters.without_replica == 1

    await eventually(is_alone, "its master has no replica")
    cluster.kill(master)
    mine = set(range(LANES // 2))
    await eventually(lambda: hub.lanes_away.keys() == mine, "its lanes are away")
    assert hub.ready
    line = encode("log", {"message": "m"}, store.settings)
    await store.publish(here, [line])
    await eventually(lambda: well.numbers == [-1, 2], "the others go on")
    page = await find_page(store, Filters())
    assert [it.id for it in page.operations] == [here]
    assert set(page.lanes_away) == mine
    master.start()
    await eventually(lambda: not hub.lanes_away, "it is back")
    await eventually(lambda: cut.closed or cut.numbers != [-1], "what it has lost is told")
    await hub.masters.refresh()
    assert hub.masters.failovers == 0, "it has restarted"
    for subscription in (one, other):
        subscription.close()
