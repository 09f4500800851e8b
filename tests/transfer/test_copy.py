"""A copy has all that its source has, and follows it, whatever breaks off."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import fakeredis
import fakeredis.aioredis
import pytest

from progress_broker.errors import Conflict, Gone
from progress_broker.hub import Hub
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.nodes.calls import Call
from progress_broker.nodes.run import run
from progress_broker.operations import retention
from progress_broker.operations.commands import all_keys, publish_call
from progress_broker.operations.store import Store
from progress_broker.replicas.presence import Presence
from progress_broker.runtime.tasks import end
from progress_broker.storage.connections import Connections
from progress_broker.storage.schema import ensure_schema
from progress_broker.storage.scripts import MIRROR, MIRROR_FEED
from tests.conftest import make_settings, url_of
from tests.keyspace import flush_all, unbounded
from tests.servers import RealRedis, eventually, free_port
from tests.transfer.copies import COPIED_TO, contents, copy_once, copying
from tests.transfer.fleet import SUCCEEDED, make_fleet, publish
from tests.workers.proxy import Proxy


@pytest.fixture
async def target(store: Store, backend: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Another Redis, of another kind and with another prefix."""
    if backend == "fakeredis":
        server = fakeredis.FakeServer()
        settings = make_settings(lanes=store.keyspace.lanes, prefix="other")
        connections = Connections.of(*(fakeredis.aioredis.FakeRedis(server=server, protocol=2) for _ in range(2)))
        opened = Store(connections, await ensure_schema(connections, settings), settings)
    else:
        url = url_of(COPIED_TO[backend], request)
        opened = await Store.open(make_settings(redis_url=url, lanes=store.keyspace.lanes, prefix="other"))
    async with opened:
        yield opened
        for master in await opened.connections.masters():
            assert await unbounded(opened.connections.commands, master, opened.keyspace, opened.settings) == []


async def change_everything(store: Store) -> None:
    """Do all that can happen to operations of the fleet."""
    await publish(store, "running", *range(30, 400))  # older events are moved, several times
    await store.publish("running", [encode("metadata", {"batch": 7}, store.settings)])
    await store.publish("running", [encode("metadata", {"batch": 8}, store.settings)])
    await store.signal("running", NewSignal(type="resume"))
    await run(store.connections.commands, publish_call("stalled", store.keyspace.operation("stalled"), []))
    keys = store.keyspace.operation("pending")
    await run(store.connections.commands, publish_call("pending", keys, [], attempt=2, begins=True, worker="w2"))
    await store.delete("short")
    await store.delete("failed")
    redis, gone = store.connections.commands, store.keyspace.operation("failed")
    await redis.delete(gone.snapshot)  # as if its tombstone's time had passed
    await store.create(NewOperation(id="failed", kind="another", tags=["x"]))
    await store.create(NewOperation(id="new", kind="import", lease_s=60))
    await publish(store, "new", *range(1, 9))
    await store.publish("new", [SUCCEEDED])
    await retention.keep(store, "long", retention.PINNED)  # which no feed tells


async def test_a_copy_has_all_that_its_source_has_and_follows_it(store: Store, target: Store) -> None:
    await make_fleet(store)
    async with copying(store, target) as copier:

        async def follow() -> None:
            await copier.caught_up()
            assert await contents(target) == await contents(store)
            await change_everything(store)
            await copier.caught_up()
            assert await copier.compare() == 2  # one is kept for longer, one has another attempt
            assert await copier.compare() == 0

        await copier.following(follow())
    assert copier.lost == []
    assert await contents(target) == await contents(store)
    with pytest.raises(Gone):
        await target.get("short")
    for number in range(store.keyspace.lanes):
        assert not await target.connections.commands.exists(target.keyspace.lane(number).leases)


async def test_what_the_source_no_longer_has_goes_from_the_copy(store: Store, target: Store) -> None:
    await make_fleet(store)
    await copy_once(store, target)
    keys = store.keyspace.operation("long")
    await store.connections.commands.delete(keys.snapshot, keys.log, keys.kept, keys.curve)
    for key in (keys.lane.index, keys.lane.creation_order):
        await store.connections.commands.zrem(key, "long")
    async with copying(store, target) as copier:
        assert await copier.following(copier.compare()) == 1
    assert not await target.connections.commands.exists(target.keyspace.operation("long").log)
    assert not any(name.startswith("long ") for name in await contents(target))


async def test_a_copy_that_breaks_off_anywhere_goes_on(store: Store, target: Store) -> None:
    await make_fleet(store)
    chosen = random.Random(5)
    for n in range(10):
        async with copying(store, target) as copier:
            task = asyncio.create_task(copier.following(copier.caught_up()))
            await asyncio.sleep(chosen.uniform(0, 0.02))
            await publish(store, "running", *range(1000 + 20 * n, 1020 + 20 * n))
            await end(task)
            assert task.cancelled() or task.exception() is None
    copier = await copy_once(store, target)
    assert copier.lost == []
    assert await contents(target) == await contents(store)


@pytest.mark.one_server
async def test_connections_that_are_cut_and_answers_that_are_lost_change_nothing(redis_url: str, folder: Path) -> None:
    port = free_port()
    with RealRedis(folder, port=port) as server, Proxy(port) as proxy:
        settings = make_settings(redis_url=redis_url, lanes=4)
        to = make_settings(redis_url=proxy.url, lanes=4, prefix="other")
        async with (
            await Store.open(settings) as store,
            await Store.open(to) as target,
            copying(store, target) as copier,
        ):

            async def follow() -> None:
                for n in range(30):
                    await store.create(NewOperation(id=f"o{n}", kind="job", lease_s=60))
                    await publish(store, f"o{n}", *range(1, 20))
                    if n % 3 == 0:
                        proxy.losing += 1
                    elif n % 3 == 1:
                        await asyncio.to_thread(proxy.cut)
                await eventually(lambda: proxy.lost > 2, "answers are lost")
                proxy.losing = 0
                await copier.caught_up()

            await copier.following(follow())
        direct = make_settings(redis_url=server.url, lanes=4, prefix="other")
        async with await Store.open(settings) as store, await Store.open(direct) as target:
            assert await contents(target) == await contents(store)
    assert copier.lost == []


async def test_entries_that_were_trimmed_before_they_were_read_leave_a_gap_and_no_difference(
    store: Store, target: Store
) -> None:
    await make_fleet(store)
    await copy_once(store, target)
    await publish(store, "running", *range(30, 60))
    lane = store.keyspace.operation("running").lane
    await store.connections.commands.xtrim(lane.feed, maxlen=3, approximate=False)
    copier = await copy_once(store, target)
    assert copier.lost == [store.keyspace.lane_of("running")]
    async with copying(store, target) as copier:
        assert await copier.following(copier.compare()) == 0


async def test_a_copy_that_somebody_uses_is_rejected_and_not_overwritten(store: Store, target: Store) -> None:
    await make_fleet(store)
    async with copying(store, target) as copier:

        async def disturb() -> None:
            await copier.caught_up()
            await target.publish("running", [NewEvent("log", b'{"message":"here"}')])
            await publish(store, "running", 31)
            await asyncio.sleep(60)

        with pytest.raises(Conflict, match="another program writes to the copy"):
            await copier.following(disturb())
    log = await target.connections.commands.xrevrange(target.keyspace.operation("running").log, count=1)
    assert log[0][1][5] == b'{"message":"here"}'
    with pytest.raises(Conflict, match="which the source does not have"):
        await copy_once(store, target)


async def test_what_can_not_be_a_copy_is_rejected_and_stays_as_it_is(store: Store, target: Store) -> None:
    await make_fleet(store)
    with pytest.raises(Conflict, match="the target is the source itself"):
        await copy_once(store, store)
    async with copying(store, target):
        with pytest.raises(Conflict, match="has the target of the copy now"):
            await copy_once(store, target)
    async with Hub(target, target.settings) as hub, Presence(target, target.settings, hub, lambda: 0):
        await hub.started()
        await eventually(lambda: target.connections.commands.exists("other:replicas"), "it is present")
        with pytest.raises(Conflict, match="servers use the target"):
            await copy_once(store, target)
    await flush_all(target.connections)
    await ensure_schema(target.connections, target.settings)
    await target.create(NewOperation(id="mine"))
    with pytest.raises(Conflict, match="neither empty nor a copy"):
        await copy_once(store, target)
    assert (await target.get("mine")).id == "mine"


async def test_a_copy_belongs_to_one_source(store: Store, target: Store) -> None:
    await copy_once(store, target)
    await store.connections.commands.hset(f"{store.keyspace.prefix}:meta", "origin", "another")
    with pytest.raises(Conflict, match="a copy of another Redis"):
        await copy_once(store, target)


async def test_the_scripts_reject_arguments_that_they_do_not_know(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    before = await contents(store)
    keys = store.keyspace.operation("a")
    [last] = await store.connections.commands.xrevrange(keys.lane.feed, count=1)
    for args in (
        ("a",),
        ("a", "IF_FEED", last[0]),
        ("a", "IF_FEED", last[0], "GONE", "0", "FIELDS"),
        ("a", "IF_FEED", last[0], "EVENT", "9-9", "-2", "n", "1", "FIELDS", "n", "1", "position", "1-1"),
        ("a", "IF_FEED", last[0], "FIELDS", "n", "1", "position", "1-1"),
        ("a", "IF_FEED", last[0], "PART", "FIELDS", "n", "1"),
    ):
        assert (await store.connections.scripts.run(Call(MIRROR, all_keys(keys), args)))[0] == b"invalid", args
    for args in (("FEED", "1"), ("FEED", "1", "IF_FEED", last[0], "ENTRY", "9-9", "4", "o", "a")):
        assert (await store.connections.scripts.run(Call(MIRROR_FEED, (keys.lane.feed,), args)))[0] == b"invalid", args
    gone = ("a", "IF_FEED", "1-1", "GONE", "0")
    assert (await store.connections.scripts.run(Call(MIRROR, all_keys(keys), gone)))[0] == b"conflict"
    assert await contents(store) == before
