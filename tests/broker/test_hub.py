"""The hub over a store, on both backends: subscribing before, during and after an operation; faults of the feed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from progress_broker import errors
from progress_broker.errors import Ended
from progress_broker.history import event_log
from progress_broker.hub import Hub
from progress_broker.live.channel import Channel
from progress_broker.live.feeds.batch import Batch
from progress_broker.live.feeds.reader import COUNT
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.event import Event, LastEvent
from progress_broker.model.operation import NewOperation, Operation
from progress_broker.operations import retention
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.delivery import Delivery, Start
from progress_broker.stream.subscription import Subscription
from tests.broker.harness import Outlet
from tests.conftest import make_settings
from tests.servers import eventually

FRESH = Start()


@pytest.fixture
def settings() -> Settings:
    return make_settings(ring_length=8, page_length=5, history_length=100)


def line(store: Store, message: str = "m") -> NewEvent:
    return encode("log", {"message": message}, store.settings)


async def publish(store: Store, count: int, operation: str = "a") -> None:
    for _ in range(count):
        await store.publish(operation, [line(store)])


async def finish(store: Store, operation: str = "a") -> None:
    await store.publish(operation, [encode("end", {"status": "succeeded"}, store.settings)])


async def watch(hub: Hub, start: Start = FRESH, operation: str = "a") -> tuple[Outlet, Subscription]:
    subscription = await hub.subscribe(operation, start)
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    return outlet, subscription


async def ended(*outlets: Outlet) -> None:
    await eventually(lambda: all(outlet.closed for outlet in outlets), "all streams end")


async def test_one_who_comes_first_gets_a_snapshot_and_then_everything(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    outlet, _ = await watch(hub)
    await publish(store, 20)
    await finish(store)
    await ended(outlet)
    assert outlet.numbers == [-1, *range(2, 23)]


async def test_those_who_come_meanwhile_miss_nothing(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    outlets: list[Outlet] = []

    async def come() -> None:
        for _ in range(30):
            outlets.append((await watch(hub, Start(beginning=True)))[0])
            outlets.append((await watch(hub, Start("0-0")))[0])
            await asyncio.sleep(0)

    coming = asyncio.create_task(come())
    await publish(store, 60)
    await coming
    await finish(store)
    await ended(*outlets)
    assert {tuple(outlet.numbers) for outlet in outlets} == {tuple(range(1, 63))}


async def test_one_who_comes_afterwards_gets_snapshot_and_end(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await finish(store)
    outlet, _ = await watch(hub)
    await ended(outlet)
    assert outlet.types == ["snapshot", "end"]


async def test_every_position_resumes_exactly(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, 40)
    await finish(store)
    events = await event_log.kept(store, "a", 100)
    for at in events[:-1]:
        outlet, _ = await watch(hub, Start(at.position.decode()))
        await ended(outlet)
        assert outlet.numbers == list(range(at.n + 1, 43))
    with pytest.raises(Ended):
        await hub.subscribe("a", Start(events[-1].position.decode()))


async def test_trimmed_and_lost_positions_are_told(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    first = (await store.get("a")).position
    await publish(store, 420)
    for position, reason in ((first, b"trimmed"), ("0-0", b"trimmed"), ("99999999999999-0", b"lost")):
        outlet, subscription = await watch(hub, Start(position))
        told = outlet.frames[[frame.type for frame in outlet.frames].index(b"snapshot")]
        assert (told.n, b'"reset":"%b"' % reason in told.wire) == (201 if reason == b"lost" else 421, True)
        await eventually(lambda outlet=outlet: outlet.numbers[-1] in (421, -421), "it is told all that is kept")
        subscription.close()


async def test_from_the_start_is_all_that_is_kept(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, 420)
    outlet, subscription = await watch(hub, Start(beginning=True))
    await eventually(lambda: outlet.numbers[-1] == 421, "it catches up")
    first = (await event_log.kept(store, "a", 1))[0].n
    assert outlet.numbers == list(range(first, 422))
    assert first > 1
    subscription.close()


async def test_what_does_not_exist_is_not_found_and_leaves_nothing(store: Store, hub: Hub) -> None:
    for start in (Start(), Start("5-5"), Start(beginning=True)):
        with pytest.raises(errors.NotFound):
            await hub.subscribe("nope", start)
    assert not hub.channels


async def test_awaiting_creation(store: Store, hub: Hub) -> None:
    subscription = await hub.subscribe("later", Start(), await_creation=True)
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    await store.create(NewOperation(id="later"))
    await publish(store, 3, "later")
    await finish(store, "later")
    await ended(outlet)
    first = outlet.numbers[0]
    assert first < 0
    assert outlet.numbers[1:] == ([5] if first == -5 else list(range(1 - first, 6)))


async def test_one_that_awaits_creation_is_not_sent_away_while_it_begins(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked, may_answer = store.get, asyncio.Event(), asyncio.Event()

    async def slow(operation: str) -> Operation:
        asked.set()
        await may_answer.wait()
        return await read(operation)

    monkeypatch.setattr(store, "get", slow)
    subscribing = asyncio.create_task(hub.subscribe("later", Start(), await_creation=True))
    await asked.wait()
    await hub._reconciler.compare(hub.channels)
    may_answer.set()
    subscription = await subscribing
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    await store.create(NewOperation(id="later"))
    await finish(store, "later")
    await ended(outlet)
    assert outlet.types[-1] == "end"


async def test_a_deleted_operation_sends_its_watchers_away(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    outlet, _ = await watch(hub)
    await store.delete("a", force=True)
    await ended(outlet)
    assert outlet.reasons() == ["gone"]
    with pytest.raises(errors.Gone):
        await hub.subscribe("a", Start())


async def test_an_operation_that_expires_sends_its_watchers_away(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a", lease_s=None))
    outlet, _ = await watch(hub)
    await retention.change(store, retention.Retention(60, 0.05))
    await ended(outlet)
    assert outlet.reasons() == ["gone"]


async def test_an_event_the_feed_lost_is_found_by_the_next(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    outlet, _ = await watch(hub)
    keys = store.keyspace.operation("a")
    await store.connections.commands.xadd(keys.log, {"n": 2, "t": "log", "d": "{}"})
    await store.connections.commands.hset(keys.snapshot, "n", 2)
    await publish(store, 1)
    await eventually(lambda: len(outlet.numbers) == 3, "the hole is filled")
    assert outlet.numbers == [-1, 2, 3]


async def test_an_end_the_feed_lost_is_found_by_the_silence(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    outlet, _ = await watch(hub)
    keys = store.keyspace.operation("a")
    await store.connections.commands.xadd(keys.log, {"n": 2, "t": "end", "d": '{"status":"failed"}'})
    await store.connections.commands.hset(keys.snapshot, mapping={"n": 2, "status": "failed"})
    await ended(outlet)
    assert outlet.types[-1] == "end"


async def test_a_log_that_was_lost_is_told(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, 5)
    outlet, subscription = await watch(hub)
    keys = store.keyspace.operation("a")
    last = (await event_log.kept(store, "a", 10))[-1]
    await store.connections.commands.xdel(keys.log, last.position)
    await store.connections.commands.hset(keys.snapshot, "n", 5)
    await eventually(lambda: len(outlet.numbers) == 2, "the loss is told")
    assert b'"reset":"lost"' in outlet.frames[-1].wire
    subscription.close()


async def replace_last(store: Store, type: str, data: str) -> None:
    """Replace the last event of `a` in Redis, without an entry in the feed, as after a failover with lost history."""
    keys, redis = store.keyspace.operation("a"), store.connections.commands
    last = (await event_log.kept(store, "a", 10))[-1]
    await redis.xdel(keys.log, last.position)
    at = await redis.xadd(keys.log, {"n": last.n, "t": type, "d": data})
    status = "failed" if type == "end" else "running"
    await redis.hset(keys.snapshot, mapping={"position": at, "status": status, "outcome": data})


@pytest.mark.parametrize(("type", "data"), [("log", "{}"), ("end", '{"status":"failed"}')])
@pytest.mark.parametrize("after_a_resync", [False, True])
async def test_a_loss_is_told_where_as_many_events_came_since(
    store: Store, hub: Hub, type: str, data: str, after_a_resync: bool
) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, 2)
    outlet, subscription = await watch(hub)
    await publish(store, 1)
    await eventually(lambda: outlet.numbers == [-3, 4], "it is told")
    await replace_last(store, type, data)
    if after_a_resync:
        hub.feeds[0].connected = False  # as after a failover
    await eventually(lambda: outlet.numbers == [-3, 4, -3, 4], "the loss is told, and what is stored instead")
    assert b'"reset":"lost"' in outlet.frames[-2].wire
    if type == "end":
        await ended(outlet)
        assert outlet.types[-1] == "end"
    subscription.close()


async def test_the_hub_outlives_whatever_is_written_into_feed_and_log(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    outlet, _ = await watch(hub)
    keys = store.keyspace.operation("a")
    client = store.connections.commands
    for fields in ({"x": "y"}, {"o": b"\xff\x00", "n": "1"}, {"o": "a", "n": "NaN"}, {"o": "a", "t": "gone?"}):
        await client.xadd(keys.lane.feed, fields)
    for n, data in enumerate((b"\xff\xfe", b"data: x\n\n", b'{"a":\n1}'), 2):
        at = await client.xadd(keys.lane.feed, {"o": "a", "n": n, "t": "log", "d": data})
        await client.xadd(keys.log, {"n": n, "t": "log", "d": data}, id=at)
        await client.hset(keys.snapshot, mapping={"n": n, "position": at})
    await finish(store)
    await ended(outlet)
    assert outlet.types == ["snapshot", "malformed", "malformed", "log", "end"]


async def test_a_key_of_the_wrong_type_sends_only_its_watchers_away(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await store.create(NewOperation(id="b"))
    keys = store.keyspace.operation("a")
    await store.connections.commands.delete(keys.log)
    await store.connections.commands.set(keys.log, "not a stream", ex=100)
    outlet, _ = await watch(hub, operation="b")
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is called, it is not a hang
        await asyncio.wait_for(watch(hub), 10)
    await store.connections.commands.delete(keys.log)
    await finish(store, "b")
    await ended(outlet)


async def test_many_who_come_at_once_cost_redis_a_few_reads(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, 6)
    reads = 0

    def counting(read: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            nonlocal reads
            reads += 1
            return read(*args, **options)

        return call

    position = (await event_log.kept(store, "a", 3))[-1].position.decode()
    with pytest.MonkeyPatch.context() as counted:
        for place, name in ((store, "get"), (event_log, "tail"), (event_log, "after"), (event_log, "kept")):
            counted.setattr(place, name, counting(getattr(place, name)))
        everyone = await asyncio.gather(
            *(watch(hub, Start(position)) for _ in range(200)), *(watch(hub) for _ in range(50))
        )
    assert 0 < reads <= 3
    assert {tuple(outlet.numbers) for outlet, _ in everyone[:200]} == {(4, 5, 6, 7)}
    await finish(store)
    await ended(*(outlet for outlet, _ in everyone))


async def test_a_burst_larger_than_a_read_of_the_feed_arrives_whole(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    outlet, _ = await watch(hub)
    batch = [line(store) for _ in range(100)]
    for _ in range(2 * COUNT // 100):
        await store.publish("a", batch)
    await finish(store)
    await ended(outlet)
    numbers = [n for n in outlet.numbers if n > 0]
    resets = [n for n in outlet.numbers[1:] if n < 0]
    assert resets or numbers == list(range(2, 2 * COUNT + 3))


async def test_draining_sends_everybody_away_and_takes_nobody(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    async with Hub(store, store.settings) as hub:
        await hub.started()
        outlet, _ = await watch(hub)
        hub.drain()
        assert outlet.reasons() == ["draining"]
        assert outlet.closed
        with pytest.raises(errors.Draining):
            await hub.subscribe("a", Start())


async def test_draining_over_a_time_sends_each_away_at_a_moment_of_its_own(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    async with Hub(store, store.settings) as hub:
        await hub.started()
        outlets = [(await watch(hub))[0] for _ in range(20)]
        hub.drain(1.5)
        assert not any(outlet.closed for outlet in outlets)
        with pytest.raises(errors.Draining):
            await hub.subscribe("a", Start())
        await eventually(lambda: any(outlet.closed for outlet in outlets), "the first is sent away")
        assert not all(outlet.closed for outlet in outlets)
        await publish(store, 1)
        stay = [outlet for outlet in outlets if not outlet.closed]
        async with asyncio.timeout(60):
            await hub.wait_until_empty()
        assert all(outlet.reasons() == ["draining"] and outlet.closed for outlet in outlets)
        assert any(outlet.numbers[-1] == 2 for outlet in stay)
        assert len(hub.wheel) == 0


@pytest.mark.parametrize("first", ["everything", "some types", "nothing yet"])
async def test_how_many_events_are_kept_is_read_once_a_client_wants_few_of_them(
    store: Store, hub: Hub, first: str
) -> None:
    created = NewOperation(id="a", history_length=60)
    if first != "nothing yet":
        await store.create(created)
    if first == "everything":
        await watch(hub)
    channel = hub.channels.get(b"a")
    assert channel is None or channel.bookmark_every == 1, "it is not known, as nobody needs it"
    for _ in range(2):
        subscription = await hub.subscribe("a", FRESH, Delivery(frozenset([b"log"])), await_creation=True)
        subscription.attach(Outlet(subscription))
    if first == "nothing yet":
        await store.create(created)
    channel = hub.channels.get(b"a")
    assert channel is not None
    await eventually(lambda: channel.bookmark_every == 30, "it is known")


@pytest.mark.parametrize("asked_by", ["a comparison", "a reset"])
async def test_an_answer_that_an_operation_does_not_exist_is_outdated_once_somebody_has_found_it(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch, asked_by: str
) -> None:
    """It was deleted and created again, and the answer is of the time between."""
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def wait_the_first_time() -> bool:
        if asked.is_set():
            return False
        asked.set()
        await may_answer.wait()
        return True

    async def last_events(*args: Any) -> list[LastEvent | None]:
        return [None] if await wait_the_first_time() else await compare(*args)

    async def get(operation: str) -> Operation:
        if await wait_the_first_time():
            raise errors.Gone("it was deleted")
        return await read(operation)

    await store.create(NewOperation(id="a"))
    outlet, subscription = await watch(hub)
    compare, read = event_log.last_events, store.get
    if asked_by == "a comparison":
        monkeypatch.setattr(event_log, "last_events", last_events)
        asking = asyncio.create_task(hub._reconciler.compare(hub.channels))
    else:
        monkeypatch.setattr(store, "get", get)
        subscription.reset("trimmed")
        asking = asyncio.create_task(asyncio.sleep(0))
    await asked.wait()
    late, _ = await watch(hub, Start("0-0"))
    may_answer.set()
    await asking
    await publish(store, 1)
    await finish(store)
    await ended(outlet, late)
    assert [abs(n) for n in outlet.numbers[-2:]] == late.numbers[-2:] == [2, 3]


async def test_a_comparison_ends_though_clients_keep_coming(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds up the feed."""
    waiting = await hub.subscribe("a", Start(), await_creation=True)

    async def last_events(*_: object) -> list[None]:
        (await hub.subscribe("a", Start(), await_creation=True)).close()
        return [None]

    monkeypatch.setattr(event_log, "last_events", last_events)
    async with asyncio.timeout(60):
        await hub._reconciler.compare(hub.channels)
    waiting.close()


async def test_an_operation_that_took_an_id_unnoticed_is_told_to_nobody_who_watched_the_earlier_one(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may read the earlier one may not be allowed to read it."""

    async def dispatch(_: object) -> None: ...

    await store.create(NewOperation(id="a", owner="ann"))
    await publish(store, 3)
    outlet, _ = await watch(hub)
    await publish(store, 1)
    await eventually(lambda: outlet.numbers == [-4, 5], "it is live")
    compare = hub._reconciler.compare
    monkeypatch.setattr(hub._reconciler, "compare", dispatch)  # a sweep in between would find that there is none
    monkeypatch.setattr(hub._dispatcher, "dispatch", dispatch)
    await store.delete("a", force=True)
    await store.connections.commands.delete(store.keyspace.operation("a").snapshot)  # the tombstone
    await asyncio.sleep(0.002)  # what is created within the same millisecond can't be told apart
    await store.create(NewOperation(id="a", owner="bob"))
    await publish(store, 1)
    await compare(hub.channels)
    await ended(outlet)
    assert outlet.numbers == [-4, 5]
    assert b'"reason":"lost"' in outlet.frames[-1].wire


async def test_who_waits_for_redis_when_the_hub_ends_is_told_that_it_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    await store.create(NewOperation(id="a"))
    async with Hub(store, store.settings) as hub:
        await hub.started()
        monkeypatch.setattr(event_log, "tail", never)
        waiting = asyncio.create_task(hub.subscribe("a", Start()))
        await eventually(lambda: len(hub._loader) == 1, "the log is being read")
    with pytest.raises(errors.Draining):
        await waiting


async def test_draining_without_clients_takes_no_time(store: Store) -> None:
    async with Hub(store, store.settings) as hub:
        hub.drain(1000)
        await hub.wait_until_empty()


async def test_the_longer_an_operation_is_silent_the_less_it_is_asked_after(store: Store) -> None:
    hub = Hub(store, store.settings, clock=lambda: 0.0)
    channel = Channel("a", hub._loader, hub.channels._limits)
    sweep_interval_s = store.settings.sweep_interval_s
    asked = []
    for sweep in range(40):
        if hub._reconciler._is_due(channel, now=sweep * sweep_interval_s):
            channel.checked_at = sweep * sweep_interval_s
            asked.append(sweep)
    assert asked == [1, 2, 4, 8, 16, 24, 32]
    channel.last_event_at = 40 * sweep_interval_s
    assert not hub._reconciler._is_due(channel, now=40.5 * sweep_interval_s)
    assert hub._reconciler._is_due(channel, now=41 * sweep_interval_s)


async def test_a_page_is_no_longer_than_a_client_has_room_for(store: Store) -> None:
    hub = Hub(store, store.settings.model_copy(update={"ring_bytes": 1_000_000}))
    hub._loader._settings = hub._settings
    channel = Channel("a", hub._loader, hub.channels._limits)
    assert hub._loader._page_length(channel) == store.settings.page_length, "nothing is known"
    for size, length in ((100, 5), (50_000, 2), (30_000, 4)):
        channel.loaded_with([Event(b"a", b"1-0", 1, b"log", b'"' + b"x" * size + b'"')])
        assert hub._loader._page_length(channel) == length


async def test_channels_that_are_silent_share_the_room_with_those_that_come(store: Store) -> None:
    hub = Hub(store, store.settings.model_copy(update={"ring_bytes": 100_000, "ring_length": 100}))
    channels = [Channel(f"{number}", hub._loader, hub.channels._limits) for number in range(100)]
    for channel in channels:
        hub.channels._channels[channel.name] = channel
        hub.channels._set_ring_limits()
        tail = [Event(channel.name, b"%d-0" % n, n, b"log", b'"' + b"x" * 900 + b'"') for n in range(1, 51)]
        channel.loaded_with(tail)
    assert sum(channel._ring.bytes for channel in channels) <= 200_000


async def test_a_resync_that_fails_is_not_tried_again_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr("progress_broker.hub.backoff_s", lambda failed: waited.append(failed) or 0)
    hub = Hub(store, store.settings)

    class Feed:
        connected, tried = True, asyncio.Event()
        positions = {store.keyspace.lane(0).feed.encode(): b"1-0"}  # noqa: RUF012

        async def batches(self) -> AsyncIterator[Batch]:
            for lanes in ((0,), (0,), (0,), (), (0,)):
                yield Batch([], lanes)

        def delivered(self) -> None: ...

    async def fail(lanes: set[int]) -> None:
        raise errors.StorageUnavailable("away")

    hub._resync = fail  # type: ignore[method-assign]
    await hub._follow(Feed())  # type: ignore[arg-type]
    assert waited == [0, 1, 2, 0]
