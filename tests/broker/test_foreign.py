"""Another program writes invalid data to our keys. Only the operation that it wrote to may be affected."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
from redis.exceptions import ResponseError

from progress_broker.access.takeover import Takeover
from progress_broker.bundle.query import OperationQuery
from progress_broker.errors import BrokerError, InvalidInput, NotFound
from progress_broker.history import event_log
from progress_broker.hub import Hub
from progress_broker.limits import limiter as limiter_module
from progress_broker.limits.limiter import Limiter
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.event import CREATED, Event, read_entry
from progress_broker.model.operation import RESERVED_TYPES, NewOperation, Status
from progress_broker.operations import index_search, rollup
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.keys import OperationKeys
from progress_broker.stream.delivery import Start
from progress_broker.stream.frames import make_frame
from tests.broker.test_hub import watch
from tests.conftest import make_settings
from tests.keyspace import flush_all, keys_of_all
from tests.servers import eventually

RUNNING = NewEvent("status", b'{"status":"running"}', "running")
LANES = 2


@pytest.fixture
def settings() -> Settings:
    return make_settings(lanes=LANES, sweep_interval_s=0.1)


@pytest.fixture(autouse=True)
def unwarned() -> None:
    warn_once.cache_clear()


@pytest.fixture
async def redis(store: Store) -> AsyncIterator[Any]:
    """The other program's client. Its data is removed after the test."""
    yield store.connections.commands
    await flush_all(store.connections)


async def set_text(redis: Any, key: str) -> None:
    await redis.set(key, b"\xffnot yours", ex=600)


async def set_hash(redis: Any, key: str) -> None:
    await redis.hset(key, mapping={b"n": b"\xff", b"status": b"running", b"position": b"x", b"t": b"end"})


async def set_list(redis: Any, key: str) -> None:
    await redis.rpush(key, b"a", b"\xff")


async def set_set(redis: Any, key: str) -> None:
    await redis.sadd(key, b"a", b"\xff")


async def set_sorted_set(redis: Any, key: str) -> None:
    await redis.zadd(key, {b"a": 1, b"\xff": 2})


async def set_stream(redis: Any, key: str) -> None:
    await redis.xadd(key, {b"\xff": b"\xff"})


TYPES: dict[str, Callable[[Any, str], Any]] = {
    "string": set_text,
    "hash": set_hash,
    "list": set_list,
    "set": set_set,
    "zset": set_sorted_set,
    "stream": set_stream,
}
OWN_KEYS: dict[str, Callable[[OperationKeys], str]] = {
    "snapshot": lambda keys: keys.snapshot,
    "log": lambda keys: keys.log,
    "signals": lambda keys: keys.signals,
    "index of its owner": lambda keys: keys.lane.index_of("owner", "odd"),
    "index of its children": lambda keys: keys.lane.index_of("parent", "odd"),
}
LANE_KEYS: dict[str, Callable[[OperationKeys], str]] = {
    "feed": lambda keys: keys.lane.feed,
    "index": lambda keys: keys.lane.index,
    "index of a kind": lambda keys: keys.lane.index_of("kind", "job"),
    "index of a status": lambda keys: keys.lane.index_of("status", "running"),
    "expiry": lambda keys: keys.lane.expiry,
    "leases": lambda keys: keys.lane.leases,
}


class Others:
    """Operations without invalid data: one in the lane of `odd`, one in the other lane. Each is a parent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        lane = store.keyspace.lane_of("odd")
        names = [f"good{i}" for i in range(20)]
        self.beside = next(name for name in names if store.keyspace.lane_of(name) == lane)
        self.elsewhere = next(name for name in names if store.keyspace.lane_of(name) != lane)

    async def begin(self) -> None:
        for id in ("odd", self.beside, self.elsewhere):
            owner = "odd" if id == "odd" else "ann"
            await self.store.create(NewOperation(id=id, kind="job", owner=owner, tags=["t"], lease_s=60))
            await self.store.publish(id, [RUNNING, encode("progress", {"percent": 10}, self.store.settings)])
            await self.store.create(NewOperation(id=f"{id}-child", parent=id, kind="part", owner=owner))

    async def are_listed(self, *ids: str) -> None:
        for filters in (
            Filters(),
            Filters(kinds=("job",)),
            Filters(owners=("ann",)),
            Filters(statuses=frozenset({Status.RUNNING})),
        ):
            found, cursor, _ = await find_page(self.store, filters, limit=1)
            while cursor is not None:
                page, cursor, _ = await find_page(self.store, filters, limit=1, cursor=cursor)
                found += page
            assert {*ids} <= {operation.id for operation in found}, filters
        wanted = frozenset({b"owner:ann", b"kind:job"})
        facts = (await index_search.by_terms(self.store, wanted, {}, range(LANES), 10)).operations
        assert {*ids} <= {fact.operation for fact in facts}
        named = await index_search.by_ids(self.store, ["odd", *ids])
        assert {*ids} <= {fact.operation for fact in named.operations}

    async def live_on(self, hub: Hub, *ids: str) -> None:
        for id in ids:
            before = await self.store.get(id)
            assert before.children is not None
            assert before.children.total == 1
            assert (await rollup.ids(self.store.connections, self.store.keyspace, id)).ids == [f"{id}-child"]
            outlet, _ = await watch(hub, operation=id)
            answer = await self.store.publish(id, [encode("log", {"message": "on"}, self.store.settings)], attempt=1)
            assert answer.events > before.events
            await eventually(lambda outlet=outlet: outlet.types[-1] == "log", "it is watched")  # type: ignore[misc]
            assert [event.n for event in await event_log.kept(self.store, id, 100)] == list(range(1, answer.events + 1))

    async def are_reaped(self, *ids: str) -> None:
        for id in ids:
            await self.store.connections.commands.zadd(self.store.keyspace.operation(id).lane.leases, {id: 1})
        await Reaper(self.store).reap()
        for id in ids:
            assert (await self.store.get(id)).status is Status.STALLED

    async def are_swept(self, *ids: str) -> None:
        redis = self.store.connections.commands
        for id in ids:
            keys = self.store.keyspace.operation(id)
            [member] = [
                one for one in await redis.zrange(keys.lane.expiry, 0, -1) if one.startswith(f"{id}\n".encode())
            ]
            await redis.zadd(keys.lane.expiry, {member: 1})
            await redis.hset(keys.snapshot, "expires", "1")
        for _ in range(3):
            await self.store.upkeep.sweep()
        for id in ids:
            keys = self.store.keyspace.operation(id)
            assert not await redis.exists(keys.snapshot, keys.log)
            assert await redis.zscore(keys.lane.index, id) is None


async def is_survived(store: Store) -> None:
    """Every call on the damaged operation returns a result, or raises an error with a message."""

    async def ask(asked: Any) -> None:
        with suppress(BrokerError):
            await asked

    await ask(store.get("odd"))
    await ask(store.attributes("odd"))
    await ask(store.family("odd"))
    await ask(event_log.kept(store, "odd", 10))
    await ask(event_log.after(store, "odd", "0-0", 10))
    await ask(store.publish("odd", [encode("log", {"message": "?"}, store.settings)]))
    await ask(store.publish("odd", []))
    await ask(store.create(NewOperation(id="odd")))
    await ask(store.cancel("odd"))
    await ask(store.delete("odd", force=True))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("key", OWN_KEYS)
async def test_a_key_of_an_operation_of_any_type_harms_no_other(store: Store, redis: Any, key: str, type: str) -> None:
    others = Others(store)
    await others.begin()
    ids = (others.beside, others.elsewhere)
    await redis.zadd(store.keyspace.operation("odd").lane.leases, {"odd": 1})
    name = OWN_KEYS[key](store.keyspace.operation("odd"))
    await redis.delete(name)
    await TYPES[type](redis, name)
    async with Hub(store, store.settings) as hub:
        await hub.started()
        await others.are_listed(*ids)
        await others.live_on(hub, *ids)
        await others.are_reaped(*ids)
        await others.are_swept(*ids)
    await is_survived(store)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("key", LANE_KEYS)
async def test_a_key_of_a_lane_of_any_type_harms_no_other_lane_and_comes_back(
    store: Store, redis: Any, backend: str, key: str, type: str
) -> None:
    if key == "feed" and backend == "fakeredis":
        pytest.skip("an XREAD of the double breaks at a key of another type")
    others = Others(store)
    await others.begin()
    name = LANE_KEYS[key](store.keyspace.operation("odd"))
    async with Hub(store, store.settings) as hub:
        await hub.started()
        await redis.delete(name)
        await TYPES[type](redis, name)
        if key == "feed" and type != "stream":

            async def is_back() -> bool:
                return await redis.type(name) in (b"none", b"stream") and hub.connected

            await eventually(is_back, "the feeds are read again")
        await others.are_listed(others.elsewhere)
        await others.are_reaped(others.elsewhere)
        await store.publish(others.beside, [NewEvent("status", b'{"status":"stalled"}', "stalled")], as_observer=True)
        await store.publish(others.beside, [RUNNING])  # this updates it in all its indexes
        await others.live_on(hub, others.elsewhere, others.beside)
        await others.are_listed(others.beside)
        await others.are_reaped(others.beside)
        await others.are_swept(others.elsewhere, others.beside)


NUMBERS = [b"", b"-1", b"x", b"\xff", b"1e400", b"nan", b"inf", b"9" * 30, b"9" * 5000, b"1.5", b" 7", b"0"]
BYTES = [*NUMBERS, b"null", b"[]", b'{"a":', b'{"status":[]}', b"\n", b"a\nb", b"5-", b"99999999999999-0", b"paused"]
FIELDS = [
    "n",
    "status",
    "position",
    "attempt",
    "schema",
    "history_length",
    "feed_length",
    "retention_ms",
    "idle_ms",
    "lease_ms",
    "listed_ms",
    "indexes",
    "spec",
    "created",
    "expires",
]
FIELDS += ["started", "finished", "cancel", "cancel_at", "progress", "outcome", "worker"]
FIELDS += ["lease_override_ms", "lease_floor_ms", "has_children"]
FIELDS += ["first_position", "producers", "producer:p", "gone", "traceparent"]
MEMBERS = [b"", b"\xff", b"no such operation", b"odd:events", b"a\nb", b"odd\nkind:job", b"\n", b"x" * 300, b"~probe"]
SCORES = [0, 1, -5, 1.5, float("inf"), float("-inf"), 2e300, 1 << 53, 1795968000000]


async def scribble(redis: Any, keys: OperationKeys, chance: random.Random) -> None:
    """Write invalid data to any of an operation's own keys, and about it to the keys of its lane."""
    act = chance.choice(["field", "field", "no field", "log", "signals", "member", "feed"])
    garbage = chance.choice(BYTES)
    if act == "field":
        await redis.hset(keys.snapshot, chance.choice(FIELDS), garbage)
    elif act == "no field":
        await redis.hdel(keys.snapshot, chance.choice(FIELDS))
    elif act == "member":
        lane = keys.lane
        shared = [
            lane.index,
            lane.index_of("kind", "job"),
            lane.index_of("status", "running"),
            lane.leases,
            lane.expiry,
        ]
        await redis.zadd(chance.choice(shared), {chance.choice([*MEMBERS, garbage]): chance.choice(SCORES)})
    else:
        names = [b"n", b"t", b"d", b"p", b"s", b"a", b"\xff"]
        fields = {name: chance.choice([*BYTES, b"end", b"cancel", b"changed", b"created", b"gone"]) for name in names}
        for name in chance.sample(names, chance.randrange(len(names))):
            del fields[name]
        if act == "feed":
            await redis.xadd(keys.lane.feed, {b"o": chance.choice([b"odd", b"\xff", b""]), **fields})
        else:
            at = chance.choice(["*", "*", "99999999999999-0", f"{(1 << 64) - 1}-{(1 << 64) - 1}"])
            with suppress(ResponseError):  # it may have used up the IDs
                await redis.xadd(keys.log if act == "log" else keys.signals, fields or {b"x": b""}, id=at)


@pytest.mark.parametrize("seed", range(12))
async def test_garbage_of_any_kind_harms_no_other(store: Store, redis: Any, seed: int) -> None:
    chance = random.Random(seed)
    others = Others(store)
    await others.begin()
    ids = (others.beside, others.elsewhere)
    await redis.zadd(store.keyspace.operation("odd").lane.leases, {"odd": 1})
    async with Hub(store, store.settings) as hub:
        await hub.started()
        watcher = await hub.bundles.open(OperationQuery(terms=frozenset({b"kind:job"})), Start())
        for _ in range(12):
            await scribble(redis, store.keyspace.operation("odd"), chance)
        await others.are_listed(*ids)
        await others.live_on(hub, *ids)
        await others.are_reaped(*ids)
        for operation in (await find_page(store, Filters())).operations:
            orjson.dumps(operation.model_dump(mode="json"))
        await others.are_swept(*ids)
        assert not any(feed.interruptions for feed in hub.feeds)
        watcher.close("client")
    await is_survived(store)


async def test_what_hinders_is_told_once(store: Store, redis: Any, caplog: pytest.LogCaptureFixture) -> None:
    others = Others(store)
    await others.begin()
    keys = store.keyspace.operation("odd")
    await redis.hset(keys.snapshot, mapping={"created": "never", "n": "many"})
    await redis.xadd(keys.log, {"n": "9", "t": "log", "d": "\xff"})
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            await redis.zadd(keys.lane.leases, {"odd": 1})
            await Reaper(store).reap()
            await store.upkeep.sweep()
            await find_page(store, Filters())
            for event in await event_log.kept(store, "odd", 10):
                make_frame(event)
    told = [record.getMessage() for record in caplog.records if "odd" in record.getMessage()]
    assert len(told) == len(set(told)) == 2
    assert not [record for record in caplog.records if record.exc_info]


# Events


@pytest.mark.parametrize("type", sorted(RESERVED_TYPES - {"child"}))
def test_a_reserved_type_in_redis_is_no_control_frame(type: str) -> None:
    frame = make_frame(Event(b"a", b"5-0", 3, type.encode(), b'{"reason":"max-age"}'))
    assert (frame.type, frame.n, frame.position) == (b"malformed", 3, b"5-0")
    assert frame.wire.startswith(b"id: 5-0\nevent: malformed\n")


@pytest.mark.parametrize("type", sorted(RESERVED_TYPES - {"child"}))
async def test_the_script_rejects_a_reserved_type(store: Store, type: str) -> None:
    await store.create(NewOperation(id="a"))
    with pytest.raises(InvalidInput, match=type):
        await store.publish("a", [encode("log", {"message": "with it"}, store.settings), NewEvent(type, b"{}")])
    assert (await store.get("a")).events == 1
    assert len(await event_log.kept(store, "a", 10)) == 1


@pytest.mark.parametrize("type", ["progress", "log", "custom"])
def test_an_event_without_data_is_told_as_such(type: str) -> None:
    event = read_entry(b"a", [b"5-0", [b"n", b"2", b"t", type.encode()]])
    assert event is not None
    frame = make_frame(event)
    assert (frame.type, frame.n) == (b"malformed", 2)


def test_an_end_without_data_is_an_end() -> None:
    event = read_entry(b"a", [b"5-0", [b"n", b"2", b"t", b"end"]])
    assert event is not None
    assert make_frame(event).type == b"end"


@pytest.mark.parametrize(
    "n", [*(n for n in NUMBERS if n not in (b" 7", b"0")), b"9007199254740992", b"-9007199254740993"]
)
def test_a_number_that_clients_can_t_count_with_is_none(n: bytes) -> None:
    assert read_entry(b"a", [b"5-0", [b"n", n, b"t", b"log", b"d", b"{}"]]) is None


@pytest.mark.parametrize("name", [b"\xff", b"", b"a b", b"a\nb", b"-a", b"x" * 129])
def test_an_entry_of_the_broker_s_own_kind_names_an_operation(name: bytes) -> None:
    assert read_entry(None, [b"5-0", [b"o", name, b"t", CREATED, b"d", b"kind:job"]]) is None


async def test_a_position_that_can_t_be_read_is_gone_on_from(store: Store, redis: Any) -> None:
    await store.create(NewOperation(id="a"))
    at = (await redis.xadd(store.keyspace.operation("a").log, {"x": "y"})).decode()
    page = await event_log.after(store, "a", at, 10)
    assert (page.events, page.reset) == ([], None)
    assert page.at is not None
    assert page.at.n == 1
    await store.publish("a", [encode("log", {"message": "the event after it"}, store.settings)])
    page = await event_log.after(store, "a", at, 10)
    assert [event.n for event in page.events] == [2]
    async with Hub(store, store.settings) as hub:
        await hub.started()
        outlet, _ = await watch(hub, Start(at))
        await eventually(lambda: outlet.numbers, "it goes on")
        assert outlet.numbers == [2]


async def test_following_a_log_passes_over_what_can_t_be_read(store: Store, redis: Any) -> None:
    await store.create(NewOperation(id="a"))
    key = store.keyspace.operation("a").log
    reads = 0
    client: Any = await store.connections.blocking(key)
    execute = client.execute_command

    async def counted(*args: Any, **more: Any) -> Any:
        nonlocal reads
        reads += args[0] == "XREAD"
        return await execute(*args, **more)

    client.execute_command = counted
    for _ in range(3):
        await redis.xadd(key, {"x": "y"})

    async def follow() -> list[int]:
        return [event.n async for event in event_log.follow(store, "a", "0-0")]

    following = asyncio.create_task(follow())
    await eventually(lambda: reads == 2, "it waits for more")
    await store.publish("a", [encode("end", {"status": "succeeded"}, store.settings)])
    assert await asyncio.wait_for(following, 10) == [1, 2]
    assert reads <= 3


async def test_a_log_in_a_distant_future_does_not_take_its_lane_along(store: Store, redis: Any) -> None:
    others = Others(store)
    await others.begin()
    keys = store.keyspace.operation("odd")
    await redis.xadd(keys.log, {"n": "9", "t": "log", "d": "{}"}, id="99999999999999-0")
    before = (await store.get("odd")).events
    answer = await store.publish("odd", [encode("log", {"message": "now"}, store.settings)])
    assert answer.events == before + 1
    beside = await store.publish(others.beside, [encode("log", {"message": "now"}, store.settings)])
    for position in (answer.position, beside.position):
        assert int(position.partition("-")[0]) < 99999999999999
    assert await redis.pttl(keys.log) > 0


# Limits of callers


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("field", ["requests", "sent", "streams"])
async def test_a_caller_s_key_of_any_type_leaves_limits_together(
    store: Store, redis: Any, field: str, type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter_module, "TIMEOUT_S", 30)  # however busy the machine is
    tally = Tally()
    settings = make_settings(requests_per_s=1, sent_bytes_per_s=1, max_streams_per_principal=5)
    limiter = Limiter(settings, tally)
    async with limiter.shared(store):
        await TYPES[type](redis, getattr(store.keyspace.caller("mallory"), field))
        assert limiter.requests is not None
        assert limiter.sent is not None
        for who in ("ann", "mallory"):
            limiter.requests.take(who, 1, limiter.clock())
            limiter.sent.take(who, 1000, limiter.clock())  # so that its key stays for 1,000 s
            (await limiter.stream_slot(who, "10.0.0.1")).release()
        await limiter.settle()
        assert tally.limiter_mode_changes["alone"] == 0
        assert await redis.exists(store.keyspace.caller("ann").sent)
        assert await redis.exists(store.keyspace.caller("mallory").sent)


@pytest.mark.parametrize("type", TYPES)
async def test_an_identifier_s_key_of_any_type_hinders_nobody(store: Store, redis: Any, type: str) -> None:
    async with Takeover(store) as newest:
        gone: list[str] = []
        await newest.claim("ann", "1", lambda: gone.append("ann"))
        await newest.claim("tab", "2", lambda: gone.append("2"))
        for key in [key for key in await keys_of_all(store.connections) if key.startswith(b"pb:newest:")]:
            if await redis.get(key) == b"2":
                await redis.delete(key)
                await TYPES[type](redis, key.decode())
        await newest.check_all()
        await newest.claim("tab", "3", lambda: gone.append("3"))
        await newest.check_all()
        assert "ann" not in gone


@pytest.mark.parametrize("type", TYPES)
async def test_one_of_another_type_can_be_deleted(store: Store, redis: Any, type: str) -> None:
    await store.create(NewOperation(id="odd"))
    key = store.keyspace.operation("odd").snapshot
    await redis.delete(key)
    if type == "hash":
        await redis.hset(key, "status", "failed")
    else:
        await TYPES[type](redis, key)
    with pytest.raises(NotFound):
        await store.get("odd")
    await store.delete("odd")
    assert await redis.hget(key, "gone") == b"1"
