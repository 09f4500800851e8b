"""Many operations on one stream, on both backends: searching, new and deleted operations, and resuming."""

import asyncio
from itertools import count
from typing import Any

import orjson
import pytest

from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.cursor import LanePosition, parse, write
from progress_broker.bundle.query import OperationQuery
from progress_broker.errors import Draining, Ended, Gone, InvalidInput, NotFound, StorageUnavailable
from progress_broker.history.losses import Loss
from progress_broker.hub import Hub
from progress_broker.live.feeds.batch import Batch
from progress_broker.model.entry import encode
from progress_broker.model.event import CREATED, Event
from progress_broker.model.index_terms import Found, IndexedOperation
from progress_broker.model.operation import NewOperation, Operation
from progress_broker.model.position import order
from progress_broker.operations import index_search
from progress_broker.operations.commands import create_call, delete_call, publish_call
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.delivery import ALL, Delivery, Start
from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import TEXT
from progress_broker.stream.stream import Mode
from tests.conftest import make_settings
from tests.keyspace import keys_of_all, master_of
from tests.servers import eventually

MINE = OperationQuery(terms=frozenset({b"owner:ann"}))


@pytest.fixture
def settings() -> Settings:
    return make_settings(ring_length=8, page_length=5, history_length=100)


class Client:
    """A client of a stream: the events that it has received, and its cursor."""

    kind = "test"
    client = ""
    encoding = TEXT

    def __init__(self, bundle: Bundle, room: int = 1 << 40) -> None:
        self.bundle, self.room, self.held = bundle, room, 0
        self.text = b""
        self.closed = self.aborted = False

    def write(self, data: bytes) -> None:
        assert not self.closed, "written to after its end"
        self.text += data
        self.held += len(data)
        if self.held >= self.room:
            self.bundle.pause_writing()

    def drain(self) -> None:
        self.held = 0
        self.bundle.resume_writing()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def leave(self) -> "Client":
        self.bundle.close()
        return self

    @property
    def cursor(self) -> str | None:
        ids = [line[4:] for line in self.text.split(b"\n") if line.startswith(b"id: ")]
        return ids[-1].decode() if ids else None

    def events(self, name: str | None = None) -> list[dict[str, object]]:
        """The received events: their `data`, with the event's name as `event`. With a name, only those events."""
        told = []
        for block in self.text.split(b"\n\n"):
            lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"event" in lines and name in (None, lines[b"event"].decode()):
                told.append(orjson.loads(lines[b"data"]) | {"event": lines[b"event"].decode()})
        return told

    def numbers(self, operation: str) -> list[int]:
        """The numbers of an operation's events; a snapshot is shown as -n."""
        mine = [event for event in self.events() if event.get("operation") == operation and "n" in event]
        return [-int(str(it["n"])) if it["event"] == "snapshot" else int(str(it["n"])) for it in mine]


def named(*ids: str) -> OperationQuery:
    return OperationQuery(ids)


async def watch(
    hub: Hub, query: OperationQuery, cursor: str | None = None, delivery: Delivery = ALL, room: int = 1 << 40
) -> Client:
    bundle = await hub.bundles.open(query, Start(cursor), delivery)
    client = Client(bundle, room)
    bundle.attach(client)
    return client


async def create(store: Store, *ids: str, owner: str = "ann") -> None:
    for id in ids:
        await store.create(NewOperation(id=id, owner=owner))


async def publish(store: Store, operation: str, count: int = 1, type: str = "log") -> None:
    data = {"message": "m"} if type == "log" else {"current": 1}
    for _ in range(count):
        await store.publish(operation, [encode(type, data, store.settings)])


async def finish(store: Store, *ids: str) -> None:
    for id in ids:
        await store.publish(id, [encode("end", {"status": "succeeded"}, store.settings)])


async def told(client: Client, operation: str, last: int) -> None:
    await eventually(
        lambda: [abs(n) for n in client.numbers(operation)][-1:] == [last], f"event {last} of {operation} is told"
    )


async def test_those_named_are_told_from_their_snapshots_to_their_ends_and_then_it_closes(
    store: Store, hub: Hub
) -> None:
    await create(store, "a", "b", "c")
    client = await watch(hub, named("a", "b", "c"))
    for _ in range(10):
        for id in ("a", "b", "c"):
            await publish(store, id)
    await finish(store, "a", "b", "c")
    await eventually(lambda: client.closed, "it closes when all have ended")
    for id in ("a", "b", "c"):
        numbers = client.numbers(id)
        assert [-numbers[0], *numbers[1:]] == list(range(-numbers[0], 13))
    with pytest.raises(Ended):
        await hub.bundles.open(named("a", "b", "c"), Start(client.cursor))


async def test_who_was_told_of_ends_that_redis_has_just_lost_is_not_told_that_all_is_over(
    store: Store, hub: Hub
) -> None:
    await create(store, "a")
    client = await watch(hub, named("a"))
    await finish(store, "a")
    await eventually(lambda: client.closed, "it has ended")
    lane = store.keyspace.lane_of("a")
    lost = f"{round((await store.now()).timestamp() * 1000) + 60_000}-1000".encode()
    hub.bundles.watermarks[lane] = lost  # its feed was read up to there, and does not tell yet that Redis forgot that
    with pytest.raises(StorageUnavailable):
        await hub.bundles.open(named("a"), Start(write({lane: LanePosition(lost)}).decode()))


async def test_of_a_lane_whose_feed_is_not_up_to_date_nothing_is_told(store: Store, hub: Hub) -> None:
    """Redis may have restarted with less than it had: then what members read of it does not go with what was told."""
    await create(store, "a")
    client = await watch(hub, named("a"))
    await told(client, "a", 1)
    feed, lane = hub.bundles.is_up_to_date, store.keyspace.lane_of("a")
    hub.bundles.is_up_to_date = lambda _: False
    with pytest.raises(StorageUnavailable):
        await hub.bundles.open(named("a"), Start(client.cursor))
    await publish(store, "a", 3)
    last = (await store.get("a")).position.encode()
    await eventually(lambda: order(hub.bundles.watermarks[lane]) >= order(last), "the feed has come there")
    assert client.numbers("a") == [-1]
    hub.bundles.is_up_to_date = feed
    await publish(store, "a")
    await told(client, "a", 5)
    assert client.numbers("a") == [-1, 2, 3, 4, 5]


async def test_every_cursor_resumes_exactly(store: Store, hub: Hub) -> None:
    names = [f"op-{i}" for i in range(6)]
    await create(store, *names)
    client = await watch(hub, named(*names))
    for id in names:
        await told(client, id, 1)
    for i in range(30):
        await publish(store, names[i % 6])
    for id in names:
        await told(client, id, 6)
    client.leave()
    blocks = client.text.split(b"\n\n")
    for cut in range(8, len(blocks), 5):
        before = Client(client.bundle)
        before.text = b"\n\n".join(blocks[:cut]) + b"\n\n"
        assert before.cursor is not None, "the first event has one"
        known = parse(before.cursor, store.keyspace.lanes)
        after = await watch(hub, named(*names), before.cursor)
        for id in names:
            seen = [abs(n) for n in before.numbers(id)]
            if seen[-1:] != [6]:
                await told(after, id, 6)
            if known[store.keyspace.lane_of(id)].partial:  # not all snapshots of the lane were sent
                assert after.numbers(id) == [-6]
            else:
                assert after.numbers(id) == list(range(seen[-1] + 1, 7))
        after.leave()


async def test_a_query_tells_what_appears_and_what_ends(store: Store, hub: Hub) -> None:
    await create(store, "a")
    await create(store, "other", owner="bob")
    client = await watch(hub, MINE)
    await told(client, "a", 1)
    await create(store, "b")
    await told(client, "b", 1)
    await publish(store, "b", 3)
    await told(client, "b", 4)
    await finish(store, "a", "b")
    await told(client, "b", 5)
    await told(client, "a", 2)
    assert client.numbers("other") == []
    assert client.events("operations")[0]["operations"] == ["a"]
    await create(store, "c")
    await told(client, "c", 1)
    assert not client.closed, "there can always be another"
    assert len(hub.channels) == 1, "those that have ended are followed no more"
    client.leave()


async def test_what_happened_while_away_is_told(store: Store, hub: Hub) -> None:
    await create(store, "old", "stays", "ends", "seen")
    client = await watch(hub, MINE)
    await told(client, "stays", 1)
    await finish(store, "seen")
    await told(client, "seen", 2)
    for id in ("old", "stays", "ends"):
        await told(client, id, 1)
    client.leave()
    await publish(store, "stays", 12)
    await finish(store, "ends")
    await create(store, "new", "brief")
    await publish(store, "new", 2)
    await finish(store, "brief")
    await store.delete("old", force=True)
    again = await watch(hub, MINE, client.cursor)
    await told(again, "stays", 13)
    await told(again, "ends", 2)
    await told(again, "new", 3)
    await told(again, "brief", 2)
    assert again.numbers("stays") == list(range(2, 14))
    assert again.numbers("ends") == [2]
    assert again.numbers("new") == [-1, 2, 3]
    assert again.numbers("brief") == [-1, 2]
    assert again.numbers("seen") == []
    assert set(again.events("operations")[0]["operations"]) == {"stays", "ends", "new", "brief"}  # type: ignore[call-overload]
    again.leave()


async def test_a_trimmed_log_and_a_lost_position_are_told(store: Store, hub: Hub) -> None:
    await create(store, "a", "b")
    client = await watch(hub, named("a", "b"))
    await told(client, "a", 1)
    await told(client, "b", 1)
    client.leave()
    await publish(store, "a", 420)
    again = await watch(hub, named("a", "b"), client.cursor)
    await told(again, "a", 421)
    assert again.numbers("a") == [-421]
    assert again.events("snapshot")[0]["reset"] == "trimmed"
    again.leave()
    lanes = [store.keyspace.lane_of(id) for id in ("a", "b")]
    lost = await watch(hub, named("a", "b"), write(dict.fromkeys(lanes, LanePosition(b"99999999999999-0"))).decode())
    await told(lost, "a", 421)
    await told(lost, "b", 1)
    assert [event["reset"] for event in lost.events("snapshot")] == ["lost", "lost"]
    await publish(store, "b")
    await told(lost, "b", 2)
    lost.leave()


def two_of_a_lane(store: Store) -> tuple[str, str]:
    lane_of = store.keyspace.lane_of
    return "a", next(id for id in (f"b-{i}" for i in range(1_000)) if lane_of(id) == lane_of("a"))


def cut_after(client: Client, operation: str, n: int) -> str:
    """Return the cursor of a client whose connection broke when it had read this event."""
    blocks = client.text.split(b"\n\n")
    read = Client(client.bundle)
    for block in blocks:
        read.text += block + b"\n\n"
        if n in read.numbers(operation):
            break
    assert read.cursor is not None
    return read.cursor


@pytest.mark.parametrize("client_is", ["away", "slow"])
@pytest.mark.parametrize("endless", [True, False], ids=["query", "named"])
async def test_who_is_cut_off_before_a_reset_is_told_it_when_it_comes_back(
    store: Store, hub: Hub, endless: bool, client_is: str
) -> None:
    a, b = two_of_a_lane(store)
    query = MINE if endless else named(a, b)
    await create(store, a, b)
    client = await watch(hub, query)
    for id in (a, b):
        await told(client, id, 1)
    if client_is == "slow":
        client.bundle.pause_writing()
    else:
        client.leave()
    await publish(store, a)
    channel = None
    if client_is == "slow":  # all at once would be held for it
        channel = hub.channels.get(a.encode())
        assert channel is not None
        await eventually(lambda: channel.n == 2, "the feed has brought the first")
    await publish(store, a, 29)  # more than the ring holds
    await publish(store, b)
    await publish(store, a)
    log = store.keyspace.operation(a).log
    await store.connections.commands.xtrim(log, maxlen=3, approximate=False)  # it begins before b's event
    if channel is not None:
        await eventually(lambda: channel.n == 32, "the feed has brought all")
        client.drain()
    else:
        client = await watch(hub, query, client.cursor)
    await told(client, b, 2)
    cursor = cut_after(client, b, 2)
    client.leave()
    again = await watch(hub, query, cursor)
    await eventually(lambda: again.events("snapshot"), "the reset is told")
    (snapshot,) = again.events("snapshot")
    assert (snapshot["operation"], snapshot["reset"]) == (a, "trimmed")
    assert again.numbers(b) == [], "of the other nothing is told twice, and no reset"
    last = again.cursor
    assert last is not None
    await publish(store, b)
    await publish(store, a)
    await told(again, b, 3)
    again.leave()
    whole = await watch(hub, query, again.cursor)
    await publish(store, a)
    await eventually(lambda: whole.numbers(a), "it goes on")
    assert whole.events("snapshot") == [], "a reset that was told is owed no more"


async def test_those_that_are_not_there_are_told_and_awaited(store: Store, hub: Hub) -> None:
    with pytest.raises(NotFound):
        await hub.bundles.open(named("a", "b"), Start())
    await create(store, "a", "d")
    await store.delete("d", force=True)
    with pytest.raises(Gone):
        await hub.bundles.open(named("d"), Start())
    client = await watch(hub, named("a", "b", "d"))
    assert [(it["operation"], it["reason"]) for it in client.events("missing")] == [("b", "not-found"), ("d", "gone")]
    await create(store, "b")
    await told(client, "b", 1)
    await store.delete("b", force=True)
    gone = {"operation": "b", "reason": "gone", "event": "missing"}
    await eventually(lambda: gone in client.events("missing"), "its deletion is told")
    await finish(store, "a")
    await eventually(lambda: client.closed, "nothing is left")


async def test_nothing_follows_where_what_had_not_ended_was_deleted_meanwhile(store: Store, hub: Hub) -> None:
    await create(store, "a", "b")
    client = await watch(hub, named("a", "b"))
    await told(client, "a", 1)
    await told(client, "b", 1)
    await finish(store, "b")
    await told(client, "b", 2)
    client.leave()
    await store.delete("a", force=True)
    with pytest.raises(Ended):
        await hub.bundles.open(named("a", "b"), Start(client.cursor))


async def test_what_may_not_be_seen_looks_like_what_is_not_there(store: Store, hub: Hub) -> None:
    await create(store, "a", "secret")

    def admit(facts: IndexedOperation) -> bool:
        return facts.operation != "secret" and facts.labels("owner") == ["ann"]

    with pytest.raises(NotFound):
        await hub.bundles.open(named("secret"), Start(), admit=admit)
    for query in (named("a", "secret", "absent"), MINE):
        bundle = await hub.bundles.open(query, Start(), admit=admit)
        client = Client(bundle)
        bundle.attach(client)
        await told(client, "a", 1)
        assert client.numbers("secret") == []
        reasons = {it["operation"]: it["reason"] for it in client.events("missing")}
        assert reasons in ({}, {"secret": "not-found", "absent": "not-found"})
        client.leave()


async def test_one_that_is_sent_away_before_it_begins_is_told_to_come_back(store: Store, hub: Hub) -> None:
    await create(store, "a")
    opening = asyncio.create_task(hub.bundles.open(named("a"), Start()))
    await asyncio.sleep(0)  # it searches for them
    hub.drain()
    with pytest.raises(Draining):
        await opening


async def test_a_lost_position_is_told_also_where_the_feed_has_passed_it_since(store: Store, hub: Hub) -> None:
    redis = store.connections.commands
    await create(store, "a")
    client = await watch(hub, named("a"))
    await told(client, "a", 1)
    keys = await keys_of_all(store.connections)
    kept = {key: (max(0, await redis.pttl(key)), await redis.dump(key)) for key in keys}
    await publish(store, "a")
    await told(client, "a", 2)
    client.leave()
    for key, (ttl_ms, value) in kept.items():  # Redis was restored from a backup
        await redis.restore(key, ttl_ms, value, replace=True)
    await publish(store, "a", 2)
    lane = store.keyspace.lane_of("a")
    at = (await store.get("a")).position.encode()
    await eventually(lambda: hub.bundles.watermarks[lane] == at, "the feed has brought what came since")
    again = await watch(hub, named("a"), client.cursor)
    await told(again, "a", 3)
    assert again.numbers("a") == [0, 1, 2, 3], "no replica noted up to where it has the same"
    assert again.events("snapshot")[0]["reset"] == "lost"
    assert (await watch(hub, named("a"), again.leave().cursor)).leave().numbers("a") == []


async def test_what_is_created_while_a_lost_position_is_looked_into_hides_no_end(store: Store, hub: Hub) -> None:
    lane_of = store.keyspace.lane_of
    other = next(id for id in (f"op-{i}" for i in range(100)) if lane_of(id) != lane_of("ends"))
    await create(store, "ends", other)
    client = await watch(hub, MINE)
    await told(client, "ends", 1)
    await told(client, other, 1)
    await publish(store, other)
    await told(client, other, 2)
    client.leave()
    await finish(store, "ends")
    ended = (await store.get("ends")).position.encode()
    lanes = hub.bundles.watermarks
    await eventually(lambda: lanes[lane_of("ends")] == ended, "the feed has brought it")
    lanes[lane_of(other)] = b"0-0"  # the client comes from a replica that was ahead of this one
    opening = asyncio.create_task(hub.bundles.open(MINE, Start(client.cursor)))
    await asyncio.sleep(0)
    beside = next(id for id in (f"new-{i}" for i in range(100)) if lane_of(id) == lane_of("ends"))
    later = lanes[lane_of("ends")] = b"%d-0" % (int(ended.partition(b"-")[0]) + 1)
    hub.bundles.dispatch([Event(beside.encode(), later, 0, CREATED, b"owner:ann")])
    again = Client(await opening)
    again.bundle.attach(again)
    await told(again, "ends", 2)
    again.leave()


async def test_a_small_stream_does_not_wait_for_all_of_the_large_ones(store: Store, hub: Hub) -> None:
    names = [f"op-{i}" for i in range(20)]
    await create(store, "small", *names)
    large = await asyncio.gather(*(hub.bundles.open(named(*names), Start()) for _ in range(20)))

    class First(Client):
        placed: int | None = None

        def write(self, data: bytes) -> None:
            super().write(data)
            if self.placed is None and b"event: snapshot" in data:
                self.placed = sum(len(list(bundle.subscriptions)) for bundle in large)

    client = First(await hub.bundles.open(named("small"), Start()))
    client.bundle.attach(client)
    await told(client, "small", 1)
    assert client.placed is not None
    assert client.placed < 400
    client.leave()
    for bundle in large:
        bundle.close()


async def test_a_thousand_are_found_followed_and_resumed_and_no_more(store: Store, hub: Hub) -> None:
    names = [f"op-{i}" for i in range(1_000)]
    await create(store, *names)
    client = await watch(hub, MINE)
    await eventually(lambda: len(client.events("snapshot")) == 1_000, "all are told")
    for id in names[::50]:
        await publish(store, id)
        await told(client, id, 2)
    client.leave()
    for id in names[::100]:
        await publish(store, id, 2)
    again = await watch(hub, MINE, client.cursor)
    for id in names[::100]:
        await told(again, id, 4)
        assert again.numbers(id) == [3, 4]
    assert len([event for event in again.events() if "n" in event]) == 20
    await create(store, "one-more")
    await eventually(lambda: again.closed, "it is sent away")
    assert again.events("reconnect")[0]["reason"] == "too-many-operations"
    with pytest.raises(InvalidInput):
        await hub.bundles.open(MINE, Start())


async def test_what_was_created_while_the_feed_was_interrupted_is_found(store: Store, hub: Hub) -> None:
    await create(store, "a")
    client = await watch(hub, MINE)
    await told(client, "a", 1)
    hear, hub.bundles.dispatch = hub.bundles.dispatch, lambda events: None  # type: ignore[method-assign]
    await create(store, "b")
    await publish(store, "b", 2)
    await finish(store, "a")
    await told(client, "a", 2)
    hub.bundles.dispatch = hear  # type: ignore[method-assign]
    assert client.numbers("b") == []
    for feed in hub.feeds:
        hub.bundles.feed_advanced(feed.positions, Batch([], tuple(range(store.keyspace.lanes))))
    await told(client, "b", 3)
    assert client.numbers("b") == [-1, 2, 3]
    assert client.numbers("a") == [-1, 2]
    client.leave()


@pytest.fixture
def slow_search(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Hold the answer of the first search until this event is set."""
    find, may_answer, searches = index_search.by_terms, asyncio.Event(), count()

    async def slow(*args: Any) -> Found:
        found = await find(*args)
        if not next(searches):
            await may_answer.wait()
        return found

    monkeypatch.setattr(index_search, "by_terms", slow)
    return may_answer


async def meanwhile(store: Store) -> None:
    """Let all go on for some round trips."""
    for _ in range(30):
        await store.connections.commands.ping()


async def test_what_a_search_for_missed_ones_finds_while_a_stream_opens_begins_with_its_snapshot(
    store: Store, hub: Hub, slow_search: asyncio.Event
) -> None:
    await create(store, "a")
    await publish(store, "a", 2)
    lane, last = store.keyspace.lane_of("a"), (await store.get("a")).position.encode()
    await eventually(lambda: order(hub.bundles.watermarks[lane]) >= order(last), "the feed has come there")
    opening = asyncio.create_task(watch(hub, MINE))
    await meanwhile(store)
    for feed in hub.feeds:
        hub.bundles.feed_advanced(feed.positions, Batch([], tuple(range(store.keyspace.lanes))))
    await meanwhile(store)
    slow_search.set()
    client = await opening
    await told(client, "a", 3)
    assert client.numbers("a") == [-3]
    client.leave()


async def test_what_appears_while_a_stream_opens_is_not_awaited_any_more(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the search is of the time before."""
    find, asked, may_answer = index_search.by_ids, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> Found:
        found = await find(*args)
        asked.set()
        await may_answer.wait()
        return found

    monkeypatch.setattr(index_search, "by_ids", slow)
    await create(store, "a")
    opening = asyncio.create_task(watch(hub, named("a", "b")))
    await asked.wait()
    await create(store, "b")
    await eventually(lambda: any("b" in bundle.merge.open_ids() for bundle in hub.bundles), "it has appeared")
    may_answer.set()
    client = await opening
    await finish(store, "a", "b")
    await eventually(lambda: client.closed, "nothing else can come")
    assert client.events("missing") == []
    assert client.numbers("b") == [-1, 2]


async def test_what_ends_while_a_stream_opens_is_among_what_it_follows(
    store: Store, hub: Hub, slow_search: asyncio.Event
) -> None:
    await create(store, "a")
    opening = asyncio.create_task(watch(hub, MINE))
    await meanwhile(store)
    await create(store, "b")
    await finish(store, "b")
    await meanwhile(store)
    slow_search.set()
    client = await opening
    await told(client, "b", 2)
    (listed,) = client.events("operations")
    assert sorted(listed["operations"]) == ["a", "b"]  # type: ignore[call-overload]
    client.leave()


async def test_one_that_is_deleted_and_made_anew_at_one_moment_is_followed(store: Store, hub: Hub) -> None:
    lane_of = store.keyspace.lane_of
    busy = next(id for id in (f"busy-{i}" for i in range(200)) if lane_of(id) == lane_of("a"))
    await create(store, "a", "other", busy)
    await publish(store, "a", 3)
    await store.delete("other", force=True)  # so that the script is loaded
    client = await watch(hub, MINE)
    await told(client, "a", 4)
    heard = len(client.numbers("a"))
    alone = await hub.subscribe("a", Start())  # this client is disconnected when it is deleted
    others = await asyncio.gather(*(hub.subscribe(busy, Start()) for _ in range(500)))
    keys = store.keyspace.operation("a")
    commands = await master_of(store.connections, keys.snapshot)
    entry = encode("log", {"message": "m"}, store.settings)
    before = publish_call(
        busy, store.keyspace.operation(busy), [entry]
    )  # so many operations need more than one turn of the loop
    async with commands.pipeline(transaction=True) as pipeline:  # so that one read of the feed returns everything
        pipeline.execute_command(*before.command())
        pipeline.execute_command(*delete_call("a", keys, force=True, settings=store.settings).command())
        pipeline.delete(keys.snapshot)  # the tombstone
        pipeline.execute_command(*create_call("a", keys, NewOperation(id="a", owner="ann"), store.settings).command())
        await pipeline.execute()
    await publish(store, "a", 2)
    await eventually(lambda: client.numbers("a")[heard:] == [-1, 2, 3], "the new one is told")
    assert alone.mode is Mode.CLOSED
    told_of = [it["event"] for it in client.events() if it.get("operation") == "a"]
    assert told_of[heard : heard + 2] == ["missing", "snapshot"]
    again = await watch(hub, MINE, client.leave().cursor)
    await publish(store, "a")
    await told(again, "a", 4)
    assert again.numbers("a") == [4]
    for stream in (again.bundle, *others):
        stream.close()


async def test_a_snapshot_holds_all_there_was_where_its_lane_begins(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = store.keyspace.lane_of("a")

    async def delivered() -> None:
        last = (await read("a")).position.encode()
        await eventually(lambda: order(hub.bundles.watermarks[lane]) >= order(last), "the feed has come there")

    read, may_answer, reads = store.get, asyncio.Event(), list[str]()
    await create(store, "a")
    await delivered()  # one that hears of the creation from the feed reads the operation as it was then

    async def slow(operation: str) -> Operation:
        reads.append(operation)
        state = await read(operation)
        await may_answer.wait()
        return state

    monkeypatch.setattr(store, "get", slow)
    early = await watch(hub, named("a"))
    await eventually(lambda: len(reads) == 1, "it is read")
    await publish(store, "a", 2)
    await delivered()
    late = await watch(hub, named("a"))
    await eventually(lambda: len(reads) == 2, "it is read again")
    may_answer.set()
    await told(late, "a", 3)
    await told(early, "a", 3)
    assert late.numbers("a") == [-3], "cut off behind an older one it would come back with a cursor past what it misses"
    for client in (early, late):
        client.leave()


async def test_where_a_feed_went_back_all_is_told_anew_as_lost(store: Store, hub: Hub) -> None:
    await create(store, "a", "b")
    client = await watch(hub, named("a", "b"))
    await told(client, "a", 1)
    await told(client, "b", 1)
    lane = store.keyspace.lane_of("a")
    loss = Loss(b"1000-0", b"2000-0")
    hub.bundles.feed_advanced({store.keyspace.lane(lane).feed.encode(): b"1000-0"}, Batch([], (lane,), {lane: loss}))
    await publish(store, "a")  # this moves the feed beyond the snapshots that were sent again
    await told(client, "a", 2)
    resets = [event for event in client.events("snapshot") if event.get("reset") == "lost"]
    assert "a" in [event["operation"] for event in resets]
    await publish(store, "a")
    await told(client, "a", 3)
    again = await watch(hub, named("a", "b"), client.leave().cursor)
    await publish(store, "a")
    await told(again, "a", 4)
    assert again.numbers("a") == [4]
    again.leave()


async def test_where_a_feed_goes_back_twice_at_once_a_cursor_does_not_say_that_all_is_told(
    store: Store, hub: Hub
) -> None:
    await create(store, "a")
    client = await watch(hub, named("a"))
    await told(client, "a", 1)
    lane = store.keyspace.lane_of("a")
    for end in (b"1000-0", b"999-0"):
        batch = Batch([], (lane,), {lane: Loss(end, b"2000-0")})
        hub.bundles.feed_advanced({store.keyspace.lane(lane).feed.encode(): end}, batch)
        place = parse(client.bundle.merge.cursor().decode(), store.keyspace.lanes)[lane]
        assert place == LanePosition(end, partial=True, lost=True)
    await publish(store, "a")
    await told(client, "a", 2)
    assert [event.get("reset") for event in client.events("snapshot")] == [None, "lost"]
    client.leave()


async def test_a_slow_client_misses_nothing_but_superseded_progress(store: Store, hub: Hub) -> None:
    names = ["a", "b", "c", "d"]
    await create(store, *names)
    client = await watch(hub, named(*names), room=2_000)
    for _ in range(40):
        for id in names:
            await publish(store, id)
    for _ in range(10_000):
        if client.closed:
            break
        client.drain()
        if all(client.numbers(id)[-1:] == [41] for id in names):
            await finish(store, *names)
            names = []
        await asyncio.sleep(0.001)
    assert client.closed
    for id in ("a", "b", "c", "d"):
        numbers = client.numbers(id)
        assert [abs(n) for n in numbers] == list(range(-numbers[0], 43))


async def test_an_interval_sends_the_newest_progress_of_each_and_the_rest_in_order(store: Store, hub: Hub) -> None:
    await create(store, "a", "b")
    client = await watch(hub, named("a", "b"), delivery=Delivery(interval_s=0.3))
    for _ in range(20):
        await publish(store, "a", type="progress")
        await publish(store, "b", type="progress")
    await publish(store, "a")
    await finish(store, "a", "b")
    await eventually(lambda: client.closed, "it ends")
    for id, last in (("a", 24), ("b", 23)):
        numbers = [abs(n) for n in client.numbers(id)]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == last
        assert len(numbers) < 20


async def test_frames_hold_what_they_hold_on_a_stream_of_one(store: Store, hub: Hub) -> None:
    await create(store, "a")
    client = await watch(hub, named("a"), delivery=Delivery(types=frozenset({b"log"})))
    await told(client, "a", 1)
    await publish(store, "a", type="progress")
    await publish(store, "a")
    await told(client, "a", 4)
    event = client.events("log")[0]
    assert (event["operation"], event["n"], event["data"]) == ("a", 4, {"message": "m"})
    assert client.events("progress") == []
    client.leave()


def test_a_frame_without_its_id_is_made_once() -> None:
    from progress_broker.stream.frames import strip_id
    from tests.broker.harness import frame

    made = frame(1)
    assert strip_id(made) is strip_id(made)
    assert strip_id(made).envelope == made.envelope
    assert b"id:" not in strip_id(made).wire
    bare = Frame(0, b"", b"x", b"event: x\ndata: {}\n\n")
    assert strip_id(bare) is bare
