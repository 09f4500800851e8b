"""A full Redis: operations can be read, deleted, swept and ended; a write that needs memory is rejected completely."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from progress_broker.access import deny_list
from progress_broker.access.shared_secret import SharedSecret
from progress_broker.access.takeover import Takeover
from progress_broker.bulk import selection, verbs
from progress_broker.bulk.carrying import carry_out
from progress_broker.bundle.query import OperationQuery
from progress_broker.errors import Gone, StorageFull
from progress_broker.history import event_log
from progress_broker.hub import Hub
from progress_broker.limits.limiter import Limiter
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, NewSignal, Status
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.retention import Keep
from progress_broker.operations.store import Store
from progress_broker.queries.choice import Order
from progress_broker.queries.counts import count
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_broker.storage.masters import Masters
from progress_broker.stream.delivery import Start
from tests.broker.test_hub import watch
from tests.conftest import make_settings
from tests.servers import RealRedis, eventually, free_port, wait_until

RUNNING = NewEvent("status", b'{"status":"running"}', "running")
STALLED = NewEvent("status", b'{"status":"stalled"}', "stalled")
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with RealRedis(tmp_path_factory.mktemp("full")) as server:
        yield server


@pytest.fixture
def settings(server: RealRedis) -> Settings:
    return make_settings(redis_url=server.url, lanes=2, probe_interval_s=0.05, sweep_interval_s=0.1)


class Filled:
    """A store whose Redis can be made full."""

    def __init__(self, store: Store) -> None:
        self.store, self.redis = store, store.connections.commands

    async def fill(self) -> None:
        await self.redis.config_set("maxmemory", 1)

    async def begin(self, id: str, **words: Any) -> None:
        await self.store.create(NewOperation(id=id, **{"lease_s": 60, **words}))
        await self.store.publish(id, [RUNNING, encode("progress", {"percent": 10}, self.store.settings)])

    async def memory(self) -> int:
        return int((await self.redis.info("memory"))["used_memory"])


@pytest.fixture
async def full(server: RealRedis, settings: Settings) -> AsyncIterator[Filled]:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        async with await Store.open(settings) as store:
            yield Filled(store)
        client.config_set("maxmemory", 0)


async def test_what_takes_more_is_rejected_and_changes_nothing(full: Filled) -> None:
    await full.begin("a")
    before = await full.store.get("a")
    await full.fill()
    for asked in (
        full.store.create(NewOperation(id="b")),
        full.store.publish("a", [encode("progress", {"percent": 20}, full.store.settings)]),
        full.store.publish("a", [encode("log", {"message": "more"}, full.store.settings)]),
        full.store.publish("a", [RUNNING]),
        full.store.signal("a", NewSignal(type="pause")),
    ):
        with pytest.raises(StorageFull):
            await asked
    assert await full.store.get("a") == before
    assert len(await event_log.kept(full.store, "a", 10)) == before.events
    assert [operation.id for operation in (await find_page(full.store, Filters())).operations] == ["a"]


async def test_what_it_holds_is_read_watched_and_listed(full: Filled) -> None:
    await full.begin("a", owner="ann")
    await full.begin("child", parent="a")
    await SharedSecret(full.store).get()
    await deny_list.revoke_claim(full.store, "sub", "bob", 60)
    limiter = Limiter(make_settings(requests_per_s=10, max_streams_per_principal=1), Tally())
    async with limiter.shared(full.store), Takeover(full.store) as newest, Hub(full.store, full.store.settings) as hub:
        await hub.started()
        await full.fill()
        assert (await full.store.get("a", list_children=True)).children is not None
        assert await full.store.attributes("a") is not None
        assert len((await find_page(full.store, Filters(owners=("ann",)))).operations) == 1
        assert [event.n for event in await event_log.kept(full.store, "a", 10)] == [1, 2, 3, 4]
        assert await SharedSecret(full.store).get()
        denied = deny_list.DenyList(full.store, 1)
        await denied.refresh()
        assert denied.is_revoked("bob", None)
        await deny_list.revoke_claim(full.store, "sub", "eve", 60)
        await denied.refresh()
        assert denied.is_revoked("eve", None)
        gone: list[str] = []
        await newest.claim("tab", "1", lambda: gone.append("1"))
        await newest.claim("tab", "2", lambda: gone.append("2"))
        assert gone == ["1"]
        place = await limiter.stream_slot("ann", "10.0.0.1")
        outlet, _ = await watch(hub, Start(beginning=True))
        assert outlet.numbers == [1, 2, 3, 4]
        bundle = await hub.bundles.open(OperationQuery(terms=frozenset({b"owner:ann"})), Start())
        await full.store.cancel("a")
        await eventually(lambda: outlet.numbers[-1] == 5, "what is stored comes by")
        bundle.close("client")
        place.release()


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
async def test_an_operation_ends(full: Filled, status: str) -> None:
    await full.begin("a")
    await full.fill()
    last = [
        encode("log", {"message": "the last"}, full.store.settings),
        encode("end", {"status": status}, full.store.settings),
    ]
    answer = await full.store.publish("a", last, attempt=1)
    shown = await full.store.get("a")
    assert (shown.status, shown.events, answer.events) == (Status(status), 5, 5)
    assert [event.n for event in await event_log.kept(full.store, "a", 10)] == [1, 2, 3, 4, 5]
    assert await full.redis.zscore(full.store.keyspace.operation("a").lane.leases, "a") is None


async def test_one_asked_to_stop_hears_of_it_and_force_ends_it(full: Filled) -> None:
    await full.begin("a")
    await full.store.create(NewOperation(id="pending"))
    await full.begin("child", parent="a")
    await full.fill()
    assert (await full.store.cancel("a"))[0].status is Status.CANCELLING
    assert (await full.store.get("child")).status is Status.CANCELLING
    assert (await full.store.cancel("pending"))[0].status is Status.CANCELLED
    assert [fields for _, fields in await full.redis.xrange(full.store.keyspace.operation("a").signals)]
    assert (await full.store.publish("a", [], attempt=1)).cancel_requested
    assert (await full.store.cancel("a", force=True))[0].status is Status.CANCELLED


async def test_beats_keep_a_lease_and_wake_what_was_stalled(full: Filled) -> None:
    await full.begin("a")
    await full.begin("b")
    await full.store.publish("b", [STALLED], lease_ms=60_000)
    leases = full.store.keyspace.operation("a").lane.leases
    await full.redis.zadd(leases, {"a": 1})
    await full.fill()
    await full.store.publish("a", [], attempt=1)
    assert await full.redis.zscore(leases, "a") > 1
    await Reaper(full.store).reap()
    assert (await full.store.get("a")).status is Status.RUNNING
    await full.store.publish("b", [], attempt=1)
    assert (await full.store.get("b")).status is Status.RUNNING


async def test_a_beat_that_also_moves_listings_is_taken(full: Filled) -> None:
    await full.begin("a", lease_s=None)
    key = full.store.keyspace.operation("a").snapshot
    await full.redis.hset(key, "listed_ms", "1")
    await full.fill()
    await full.store.publish("a", [], attempt=1)
    assert int(await full.redis.hget(key, "listed_ms")) > 1


async def test_what_has_no_worker_any_more_stalls_and_is_given_up(full: Filled) -> None:
    await full.begin("a")
    await full.fill()
    leases = full.store.keyspace.operation("a").lane.leases
    for status in (Status.STALLED, Status.FAILED):
        await full.redis.execute_command(
            "EVAL", "redis.call('ZREM', KEYS[1], 'a') redis.call('ZADD', KEYS[1], 1, 'a')", 1, leases
        )
        await Reaper(full.store).reap()
        assert (await full.store.get("a")).status is status


@pytest.mark.parametrize("force", [False, True])
async def test_deleting_makes_room_and_tells_who_watches(full: Filled, force: bool) -> None:
    await full.begin("a")
    for _ in range(50):
        await full.store.publish("a", [encode("log", {"message": "x" * 50_000}, full.store.settings)])
    if not force:
        await full.store.publish("a", [encode("end", {"status": "succeeded"}, full.store.settings)])
    async with Hub(full.store, full.store.settings) as hub:
        await hub.started()
        outlet = (await watch(hub))[0] if force else None
        before = await full.memory()
        await full.fill()
        await full.store.delete("a", force=force)
        assert before - await full.memory() > MIB
        with pytest.raises(Gone):
            await full.store.get("a")
        if outlet is not None:
            await eventually(lambda: outlet.closed, "its watcher is told")
            assert outlet.reasons() == ["gone"]
    assert (await find_page(full.store, Filters())).operations == []


async def test_operations_are_found_counted_kept_and_deleted_in_bulk(full: Filled) -> None:
    store = full.store
    for id in ("a", "b", "c"):
        await full.begin(id, kind="k")
    for id in ("a", "b"):
        await store.publish(id, [encode("end", {"status": "failed"}, store.settings)])
    await full.fill()
    for order in (Order.CHANGED, Order.CREATED):
        page = await find_page(store, Filters(kinds=("k",)), order=order)
        assert {operation.id for operation in page.operations} == {"a", "b", "c"}
    assert (await count(store, Filters(kinds=("k",)))).total == 3
    verbs_in_turn = [verbs.retain(store, Keep(600)), verbs.delete(store)]
    for verb in verbs_in_turn:
        chosen = selection.filters_for(verb, Filters(kinds=("k",)))
        report = await carry_out(verb.act, selection.found(store, chosen, set()), rps=1e6)
        assert (report.failed, report.changed) == (0, 3 if verb.name == "retain" else 2)
    assert (await count(store, Filters(kinds=("k",)))).total == 1


async def test_what_has_expired_is_swept(full: Filled) -> None:
    await full.begin("a")
    keys = full.store.keyspace.operation("a")
    [member] = await full.redis.zrange(keys.lane.expiry, 0, -1)
    await full.redis.zadd(keys.lane.expiry, {member: 1})
    await full.redis.hset(keys.snapshot, "expires", "1")
    await full.fill()
    assert await full.store.upkeep.sweep() == 1
    assert not await full.redis.exists(keys.snapshot, keys.log)
    assert (await find_page(full.store, Filters())).operations == []


async def test_a_distant_deadline_keeps_no_other_from_being_reaped(full: Filled) -> None:
    await full.begin("far")
    await full.begin("near")
    lane = full.store.keyspace.operation
    await full.redis.zadd(lane("far").lane.leases, {"far": 9e14})
    await full.redis.zadd(lane("near").lane.leases, {"near": 1})
    await full.fill()
    await Reaper(full.store).reap()
    assert (await full.store.get("near")).status is Status.STALLED


async def test_a_replica_says_that_redis_is_full_and_goes_on_serving(full: Filled) -> None:
    async with Hub(full.store, full.store.settings) as hub:
        await eventually(lambda: hub.not_ready_reason is None, "delivery is proved")
        await full.fill()
        await eventually(lambda: hub.not_ready_reason == "redis full", "it is noticed")
        assert hub.probes.full
        assert hub.ready
        await full.redis.config_set("maxmemory", 0)
        await eventually(lambda: hub.not_ready_reason is None, "there is room again")
        await eventually(lambda: not hub.probes.full, "the probe that came back was also answered")


async def test_what_redis_uses_and_may_use_is_known(full: Filled) -> None:
    masters = Masters(full.store.connections)
    assert masters.memory_used != masters.memory_used  # NaN: not read yet
    await full.redis.config_set("maxmemory", 100 * MIB)
    await masters.refresh()
    assert masters.memory_max == 100 * MIB
    assert 0 < masters.memory_used < 100 * MIB


async def test_a_redis_that_does_not_tell_is_survived(full: Filled, settings: Settings) -> None:
    await full.redis.execute_command("ACL", "SETUSER", "mute", "on", "nopass", "~*", "+@all", "-info")
    async with await Store.open(settings) as store:
        masters = Masters(store.connections)
        await masters.refresh()
        known = masters.memory_used
        assert (masters.failovers, masters.unsuitable, masters.without_replica) == (0, 0, None)
        await store.connections.commands.execute_command("AUTH", "mute", "")
        await masters.refresh()
        assert known == known
        assert masters.memory_used != masters.memory_used
        assert masters.unsuitable is None
    await full.redis.execute_command("ACL", "DELUSER", "mute")


async def test_a_disk_that_is_full_rejects_writes_and_leaves_reading(tmp_path: Path) -> None:
    """With a full disk every write is rejected, even one that frees memory, because it can't be persisted."""
    data = tmp_path / "data"
    data.mkdir()
    with RealRedis(tmp_path, port=free_port(), options=("--dir", str(data))) as server:
        settings = make_settings(redis_url=server.url, probe_interval_s=0.05)
        with redis.Redis.from_url(server.url) as client:
            async with await Store.open(settings) as store, Hub(store, settings) as hub:
                await store.create(NewOperation(id="a"))
                await eventually(lambda: hub.not_ready_reason is None, "delivery is proved")
                client.config_set("save", "3600 1")
                shutil.rmtree(data)
                client.bgsave()
                wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "it can't save")
                for asked in (
                    store.publish("a", [RUNNING]),
                    store.publish("a", [encode("end", {"status": "succeeded"}, settings)]),
                    store.delete("a", force=True),
                ):
                    with pytest.raises(StorageFull, match="disk"):
                        await asked
                assert (await store.get("a")).status is Status.PENDING
                await store.upkeep.expired_leases()
                outlet, _ = await watch(hub)
                assert outlet.types == ["snapshot"]
                await eventually(lambda: hub.not_ready_reason == "redis full", "it is noticed")
                assert hub.ready
