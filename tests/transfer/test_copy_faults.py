"""A copy whose target fails over, or whose source is full: it has all in the end, or is not finished."""

import asyncio
from pathlib import Path

import pytest

from progress_broker.copying.copier import retried
from progress_broker.copying.cut_over import cut_over
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from tests.conftest import make_settings
from tests.servers import RealRedis
from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import do
from tests.transfer.copies import contents, copying
from tests.transfer.fleet import make_fleet, publish


@pytest.mark.parametrize("loser", ["source", "target"])
async def test_what_a_failover_loses(loser: str, redis_url: str, folder: Path) -> None:
    """Of the source, it is gone from the copy, too; of the target, it is copied again."""
    with SentinelSet(folder, replicas=1) as sentinels:
        urls = {"source": redis_url, "target": redis_url} | {loser: sentinels.url}
        async with (
            await Store.open(make_settings(redis_url=urls["source"], lanes=4)) as store,
            await Store.open(make_settings(redis_url=urls["target"], lanes=4, prefix="other")) as target,
        ):
            await make_fleet(store)
            said: list[str] = []
            async with copying(store, target) as copier:

                async def work() -> None:
                    await copier.caught_up()
                    sentinels.await_replicas()
                    sentinels.cut_replication(sentinels.master)
                    for id in ("lost-1", "lost-2"):
                        await store.create(NewOperation(id=id, lease_s=60))
                    await publish(store, "running", *range(30, 60))
                    await copier.caught_up()
                    await asyncio.to_thread(sentinels.failover, planned=False)
                    if loser == "source":
                        await retried(lambda: publish(store, "running", *range(60, 70)))
                    await cut_over(copier, said.append, rest_s=0.1)

                await copier.following(work())
            assert await contents(target) == await contents(store)
            listed = [operation.id for operation in (await find_page(store, Filters())).operations]
            assert ("lost-1" in listed) is (loser == "target")
    assert said == []
    assert copier.lost == []


async def test_a_feed_that_lost_its_end_is_mended_before_the_copy_is_finished(shards: tuple[str, str]) -> None:
    """Its operations have all, so that only clients of many operations would miss what was lost."""
    async with (
        await Store.open(make_settings(redis_url=shards[0])) as store,
        await Store.open(make_settings(redis_url=shards[1], lanes=16)) as target,
    ):
        await make_fleet(store)
        said: list[str] = []
        async with copying(store, target) as copier:

            async def work() -> None:
                await copier.caught_up()
                commands, feed = target.connections.commands, target.keyspace.operation("running").lane.feed
                entries = await commands.xrange(feed)
                await commands.delete(feed)
                for position, fields in entries[:-3]:
                    await commands.execute_command("XADD", feed, position, *fields)
                await cut_over(copier, said.append, rest_s=0.01)

            await copier.following(work())
        assert await contents(target) == await contents(store)
    assert said == ["the source or the target has lost events, as after a failover: the copy is mended"]
    assert copier.lost == []


async def test_an_interruption_of_all_lanes_is_told_once(
    cluster_of_masters: Cluster, cluster_url: str, second_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        await Store.open(make_settings(redis_url=cluster_url)) as store,
        await Store.open(make_settings(redis_url=second_url, lanes=16)) as target,
        copying(store, target) as copier,
    ):

        async def work() -> None:
            await copier.caught_up()
            for node in cluster_of_masters.masters():
                do(node, "CLIENT", "KILL", "TYPE", "normal")
            for n in range(40):
                new = NewOperation(id=f"op-{n}")
                await retried(lambda new=new: store.create(new))  # type: ignore[misc]
            await copier.caught_up()

        await copier.following(work())
        assert await contents(target) == await contents(store)
        told = [record for record in caplog.records if "the copy is interrupted" in record.message]
        assert len(told) == 1


async def test_a_source_that_is_full_can_be_copied(second_url: str, folder: Path) -> None:
    with RealRedis(folder) as full:
        async with (
            await Store.open(make_settings(redis_url=full.url)) as store,
            await Store.open(make_settings(redis_url=second_url, lanes=16)) as target,
        ):
            await make_fleet(store)
            do(full, "CONFIG", "SET", "maxmemory", "1mb")
            for finished in (False, True):  # the second one goes on
                async with copying(store, target) as copier:
                    work = cut_over(copier, pytest.fail, rest_s=0.01) if finished else copier.caught_up()
                    await copier.following(work)
            assert await contents(target) == await contents(store)
