"""The probe: what proves delivery and what does not. No caller can see the probe."""

import asyncio
from collections.abc import Callable
from hashlib import sha1

import pytest

from progress_broker import errors
from progress_broker.hub import Hub
from progress_broker.live.probe import Probe, Probes
from progress_broker.model.event import Event
from progress_broker.model.operation import NewOperation
from progress_broker.nodes.calls import Script
from progress_broker.operations import commands
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.runtime.tasks import end
from tests.broker.harness import Timers
from tests.broker.test_hub import watch
from tests.keyspace import keys_of_all
from tests.servers import eventually


class Bench:
    """A probe with a period of one second. The test decides when its entries come back."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.sent: list[tuple[int, Event]] = []
        self.rejection: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.probe = Probe(self.send, (0, 1), 1, self.timers.clock)

    async def send(self, lane: int, name: str, data: bytes) -> None:
        await self.answers.wait()
        if self.rejection is not None:
            raise self.rejection
        self.sent.append((lane, Event(name.encode(), b"1-0", 1, b"probe", data)))

    def come_back(self) -> None:
        self.probe.received(self.sent[-1][1])


async def test_delivery_is_proved_once_a_probe_is_back_and_for_three_periods() -> None:
    bench = Bench()
    assert bench.probe.not_ready_reason == "redis away"
    await bench.probe.once()
    assert bench.probe.not_ready_reason == "feed silent"
    bench.come_back()
    assert bench.probe.not_ready_reason is None
    bench.timers.advance(3)
    assert bench.probe.not_ready_reason is None
    bench.timers.advance(0.1)
    assert bench.probe.not_ready_reason == "feed silent"


async def test_one_that_is_back_at_once_proves_delivery() -> None:
    bench = Bench()
    for _ in range(10):  # whichever way its time would be rounded
        bench.timers.advance(0.9996)
        await bench.probe.once()
        bench.come_back()
        assert bench.probe.proved_at == bench.timers.clock()


async def test_one_that_is_long_on_its_way_proves_nothing() -> None:
    bench = Bench()
    await bench.probe.once()
    bench.timers.advance(3.1)
    bench.come_back()
    assert bench.probe.not_ready_reason == "feed silent"


async def test_who_is_at_fault_is_told() -> None:
    bench = Bench()
    bench.rejection = errors.StorageUnavailable("away")
    await bench.probe.once()
    assert bench.probe.not_ready_reason == "redis away"
    bench.rejection = ValueError("the script is broken")
    await bench.probe.once()
    assert bench.probe.not_ready_reason == "publish fails"
    bench.rejection = errors.StorageFull("full")
    await bench.probe.once()
    assert bench.probe.not_ready_reason == "redis full"
    assert bench.probe.full


async def test_a_replica_is_told_by_name_until_the_next_answer_is_another(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    caplog.set_level("INFO")
    await bench.probe.once()
    bench.come_back()
    bench.timers.advance(3.1)
    bench.rejection = errors.StorageReadOnly("Redis is read-only")
    await bench.probe.once()
    bench.rejection = errors.StorageReadOnly("redis://a is a replica of b:1")
    for _ in range(2):
        await bench.probe.once()
    assert (bench.probe.not_ready_reason, bench.probe.detail) == ("redis replica", "redis://a is a replica of b:1")
    assert [record.getMessage() for record in caplog.records] == [
        "events can't be published: Redis is read-only",
        "events can't be published: redis://a is a replica of b:1",
    ]
    bench.answers.clear()
    sending = asyncio.create_task(bench.probe.once())
    await asyncio.sleep(0)
    assert bench.probe.not_ready_reason == "redis replica"  # while the next probe is under way
    bench.rejection = errors.StorageUnavailable("away")
    bench.answers.set()
    await sending
    assert (bench.probe.not_ready_reason, bench.probe.detail) == ("redis away", "away")
    bench.rejection = None
    await bench.probe.once()
    assert (bench.probe.not_ready_reason, bench.probe.detail) == ("feed silent", "")
    assert caplog.records[-1].getMessage().endswith("is a master again; events can be published")


async def test_a_full_redis_is_told_while_the_next_probe_is_under_way_but_not_for_ever() -> None:
    bench = Bench()
    bench.rejection = errors.StorageFull("full")
    await bench.probe.once()
    bench.rejection = None
    bench.answers.clear()
    sending = asyncio.create_task(bench.probe.once())
    await asyncio.sleep(0)
    assert bench.probe.not_ready_reason == "redis full"
    bench.timers.advance(3.1)
    assert bench.probe.not_ready_reason == "redis away"  # it hangs
    bench.answers.set()
    await sending
    assert bench.probe.not_ready_reason == "feed silent"
    await bench.probe.once()
    bench.come_back()
    assert bench.probe.not_ready_reason is None


async def test_a_full_redis_is_told_and_proves_nothing() -> None:
    bench = Bench()
    await bench.probe.once()
    bench.come_back()
    bench.rejection = errors.StorageFull("full")
    await bench.probe.once()
    assert bench.probe.full
    assert bench.probe.refused == "full"
    bench.timers.advance(3.1)
    assert bench.probe.not_ready_reason == "redis full"
    bench.rejection = errors.StorageUnavailable("away")
    await bench.probe.once()
    assert bench.probe.not_ready_reason == "redis away"
    assert bench.probe.full  # as far as is known
    assert bench.probe.refused == "away"
    bench.rejection = None
    await bench.probe.once()
    assert bench.probe.not_ready_reason == "feed silent"
    assert not bench.probe.full
    assert bench.probe.refused == ""


async def test_all_lanes_have_their_turn() -> None:
    bench = Bench()
    for _ in range(4):
        await bench.probe.once()
    assert [lane for lane, _ in bench.sent] == [0, 1, 0, 1]


async def test_its_loop_turns_whatever_it_finds_and_is_missed_when_it_does_not() -> None:
    timers, sent = Timers(), asyncio.Event()

    async def send(lane: int, name: str, data: bytes) -> None:
        sent.set()
        raise errors.StorageUnavailable("no route to it")

    probes = Probes(send, lambda: [(0,)], 1, timers.clock, {})
    assert probes.turning
    running = asyncio.create_task(probes.run())
    await sent.wait()
    timers.advance(3)
    assert probes.turning
    timers.advance(0.1)
    assert not probes.turning
    await end(running)


async def test_lanes_that_move_to_another_server_stay_proved_if_all_of_that_server_were() -> None:
    timers, sent = Timers(), dict[str, int]()
    handlers: dict[bytes, Callable[[Event], None]] = {}
    nodes = [(0, 1), (2, 3)]

    async def send(lane: int, name: str, data: bytes) -> None:
        sent[name] = lane
        handlers[name.encode()](Event(name.encode(), b"1-0", 1, b"probe", data))

    probes = Probes(send, lambda: nodes, 1, timers.clock, handlers)
    await probes[0].once()
    assert [probes[lane].not_ready_reason for lane in range(4)] == [None, None, "redis away", "redis away"]
    before, other = probes[0], probes[2]
    nodes[:] = [(0,), (1, 2), (3,)]
    probes._divide()
    assert [probes[lane].not_ready_reason for lane in range(4)] == [None, "redis away", "redis away", "redis away"]
    assert handlers.keys() == {probes[lane].name for lane in (0, 1, 3)}
    assert not handlers.keys() & {before.name, other.name}
    proved = probes[0]
    nodes[:] = [(0,), (1, 2, 3)]
    probes._divide()
    assert probes[0] is proved


@pytest.mark.parametrize("data", [b"x", b"nan", b"null", b"-1e999"])
async def test_what_a_foreign_hand_writes_in_its_name_proves_nothing(data: bytes) -> None:
    bench = Bench()
    bench.probe.received(Event(bench.probe.name, b"1-0", 0, b"probe", data))
    assert bench.probe.not_ready_reason == "redis away"


async def test_it_comes_back_through_the_feed_to_its_hub_alone(store: Store) -> None:
    settings = store.settings.model_copy(update={"probe_interval_s": 0.05})
    await store.create(NewOperation(id="a"))
    before = await keys_of_all(store.connections)
    async with Hub(store, settings) as hub, Hub(store, store.settings) as other:
        await hub.started()
        assert hub.not_ready_reason is not None
        outlet, _ = await watch(hub)
        seen: list[Event] = []
        other.internal_handlers[other.probes[0].name] = seen.append
        await eventually(lambda: hub.not_ready_reason is None, "its probe is back")
        await eventually(lambda: len(seen) == 1, "the other sees its own")
        assert seen[0].operation == other.probes[0].name
        assert outlet.numbers == [-1]  # a snapshot
        assert hub.tally.events == 0
        found, *_ = await find_page(store, Filters())
        assert [operation.id for operation in found] == ["a"]
        keys = set(await keys_of_all(store.connections)) - set(before)
        assert all(key.endswith((b":feed", b":feed:length")) or b":op:~probe-" in key for key in keys)
        for key in (key for key in keys if b":op:" in key):
            left_ms = await store.connections.commands.pttl(key)
            assert (
                0 < left_ms <= 5 * 1000 * store.settings.probe_interval_s + 1000 or left_ms == -2
            )  # it was removed by now


async def test_it_goes_the_way_of_all_that_is_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = store.settings.model_copy(update={"probe_interval_s": 0.05})
    async with Hub(store, settings) as hub:
        await eventually(lambda: hub.not_ready_reason is None, "it is proved")
        with monkeypatch.context() as broken:
            text = "return redis.error_reply('ERR no longer what it was')"
            script = Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
            broken.setattr(commands, "PUBLISH", script)
            await eventually(lambda: hub.not_ready_reason == "publish fails", "a script that breaks is noticed")
        await eventually(lambda: hub.not_ready_reason is None, "and that it works again")


async def test_what_it_publishes_to_is_bounded_however_often(store: Store) -> None:
    for _ in range(300):
        await store.probe(0, "~probe-x", b"1")
    keys = store.keyspace.operation_in(0, "~probe-x")
    assert await store.connections.commands.xlen(keys.log) < 120
    lane = store.keyspace.lane(0)
    for key in (lane.index, lane.expiry, lane.leases, f"{lane.index}:status:running", keys.signals):
        assert not await store.connections.commands.exists(key)
