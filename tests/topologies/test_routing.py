"""How a Cluster is used while nothing fails: who is asked, and what goes where."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.exceptions

from progress_broker.model.operation import NewOperation
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import meta_key
from tests.conftest import make_settings
from tests.servers import free_port
from tests.topologies.cluster import Cluster
from tests.topologies.topology import LANES, do, feed_of

FEEDS = [feed_of(lane) for lane in range(LANES)]


@pytest.fixture
async def connections(cluster_of_masters: Cluster, cluster_url: str) -> AsyncIterator[Connections]:
    for node in cluster_of_masters.nodes:
        do(node, "CONFIG", "RESETSTAT")
    dead = f"redis+cluster://127.0.0.1:{free_port()},"
    connections = Connections.open(make_settings(redis_url=cluster_url.replace("redis+cluster://", dead)))
    try:
        yield connections
    finally:
        await connections.close()


def asked(cluster: Cluster) -> int:
    """How often nodes were asked who has which slot."""
    stats = [do(node, "INFO", "commandstats") for node in cluster.nodes]
    return sum(each.get("cmdstat_cluster|slots", {}).get("calls", 0) for each in stats)


async def test_all_who_begin_at_once_share_one_question_also_if_the_first_seed_is_dead(
    connections: Connections, cluster_of_masters: Cluster
) -> None:
    await asyncio.gather(*(connections.commands.hgetall(feed) for feed in FEEDS * 10))
    assert asked(cluster_of_masters) == 1


async def test_pipelines_and_scripts_are_divided_and_replies_are_in_order(connections: Connections) -> None:
    async with connections.commands.pipeline(transaction=False) as pipeline:
        for number, feed in enumerate(FEEDS):
            pipeline.set(feed, number)
            pipeline.get(feed)
        replies = await pipeline.execute()
    assert replies == [it for number in range(LANES) for it in (True, str(number).encode())]
    async with connections.commands.pipeline(transaction=False) as pipeline:
        pipeline.get(FEEDS[0])
        pipeline.hget(FEEDS[1], "f")
        pipeline.get(FEEDS[2])
        first, wrong, last = await pipeline.execute(raise_on_error=False)
        assert (first, last) == (b"0", b"2")
        assert isinstance(wrong, redis.exceptions.ResponseError)
        with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
            await pipeline.hget(FEEDS[1], "f").execute()


async def test_keys_are_divided_by_slot_and_by_node(connections: Connections, cluster_of_masters: Cluster) -> None:
    masters = await connections.masters()
    assert len(masters) == 3
    assert connections.together([*FEEDS, *FEEDS]) == [[feed, feed] for feed in FEEDS]
    groups = connections.by_node(FEEDS)
    assert [key for group in groups for key in group.keys] == FEEDS
    assert len(groups) == 3
    for commands, keys in groups:
        async with commands.pipeline(transaction=False) as pipeline:  # what names no key goes to that node, too
            times = await pipeline.time().exists(keys[0]).execute()
        assert len(times) == 2
    calls = [do(node, "INFO", "commandstats")["cmdstat_time"]["calls"] for node in cluster_of_masters.nodes]
    assert calls == [1, 1, 1]


async def test_what_can_t_be_sent_anywhere_is_refused(connections: Connections) -> None:
    for name in ("info", "flushall", "dbsize"):
        with pytest.raises(ValueError, match="names no key"):
            await getattr(connections.commands, name)()
    with pytest.raises(redis.exceptions.ClusterCrossSlotError):
        await connections.commands.delete(*FEEDS[:2])
    with pytest.raises(ValueError, match="no transactions"):
        connections.commands.pipeline()
    assert await connections.commands.time()


async def test_blocking_reads_go_to_the_node_that_has_the_key(connections: Connections) -> None:
    for feed in (FEEDS[0], FEEDS[-1]):
        client = await connections.blocking(feed)
        reading = asyncio.create_task(client.xread({feed: "0-0"}, block=2000))
        await connections.commands.xadd(feed, {"f": "v"})
        [[name, [[_, fields]]]] = await reading
        assert (name, fields) == (feed.encode(), [b"f", b"v"])


async def test_the_number_of_lanes_is_kept_where_it_was_set(cluster_of_masters: Cluster, cluster_url: str) -> None:
    settings = make_settings(redis_url=cluster_url, lanes=64)
    async with await Store.open(settings) as store:
        await store.create(NewOperation(id="a"))
        assert len({cluster_of_masters.of_lane(lane, 64) for lane in range(64)}) == 3
    async with await Store.open(make_settings(redis_url=cluster_url)) as store:
        assert store.keyspace.lanes == 64
        assert (await store.get("a")).id == "a"
        with storage_errors():
            assert await store.connections.commands.hget(meta_key("pb"), "lanes") == b"64"
