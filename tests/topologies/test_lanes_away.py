"""A server that is away costs its own lanes only: everything of the other lanes goes on."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import httpx
import orjson
import pytest

from progress_broker import errors
from progress_broker.access.takeover import REPLACED, Takeover
from progress_broker.bundle.query import OperationQuery
from progress_broker.hub import Hub
from progress_broker.limits import limiter
from progress_broker.limits.limiter import Limiter
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.queries.counts import count as count_operations
from progress_broker.queries.filters import Filters
from progress_broker.queries.walk import walk
from progress_broker.routing.slots import SLOTS
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_broker.storage.schema import ensure_schema
from progress_broker.stream.delivery import Delivery, Start
from progress_broker.stream.subscription import Subscription
from progress_client.over_redis import OverRedis
from progress_server.app import create_app
from tests.broker.harness import Outlet
from tests.broker.test_bundles import named as naming
from tests.broker.test_bundles import watch as follow
from tests.conftest import make_settings
from tests.servers import RealRedis, eventually
from tests.topologies.shards import Shards, slot_of

LANES = 16
UPPER = set(range(LANES // 2, LANES))
"""The lanes of the server that is away."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RealRedis, RealRedis]]:
    with RealRedis(tmp_path / "lower") as lower, RealRedis(tmp_path / "upper", keep=True) as upper:
        yield lower, upper


@pytest.fixture
def upper(pair: tuple[RealRedis, RealRedis]) -> RealRedis:
    return pair[1]


@pytest.fixture
def settings() -> Settings:
    return make_settings(redis_timeout_s=2, probe_interval_s=1)


async def opened(pair: tuple[RealRedis, RealRedis], settings: Settings) -> Store:
    redises = [make_settings(redis_url=server.url).redis_url for server in pair]
    connections = Shards.over(settings.model_copy(update={"redis_url": it}) for it in redises)
    return Store(connections, await ensure_schema(connections, settings), settings)


@pytest.fixture
async def store(pair: tuple[RealRedis, RealRedis], settings: Settings) -> AsyncIterator[Store]:
    async with await opened(pair, settings) as store:
        assert store.keyspace.lanes == LANES
        yield store


@pytest.fixture
async def app(store: Store) -> AsyncIterator[Any]:
    app = create_app(store.settings, store)
    async with app.router.lifespan_context(app):
        await eventually(lambda: hasattr(app.state, "context"), "it has started")
        yield app


@pytest.fixture
async def hub(app: Any) -> Hub:
    hub: Hub = app.state.context.hub
    return hub


@pytest.fixture
async def http(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(base_url="http://127.0.0.1", transport=transport) as client:
        yield client


def ids_of(store: Store, *, away: bool, prefix: str = "operation") -> Iterator[str]:
    """Yield ids of operations whose lanes are, or are not, on the server that goes away."""
    return (id for number in count() if (store.keyspace.lane_of(id := f"{prefix}-{number}") in UPPER) == away)


def is_upper(key: str) -> bool:
    """Whether a key is on the server that goes away."""
    return slot_of(key) >= SLOTS // 2


def line(message: str = "m") -> NewEvent:
    return encode("log", {"message": message}, make_settings())


async def watch(hub: Hub, operation: str) -> tuple[Outlet, Subscription]:
    subscription = await hub.subscribe(operation, Start())
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    return outlet, subscription


async def test_feeds_of_the_other_lanes_go_on_and_those_that_come_back_miss_nothing(
    store: Store, hub: Hub, upper: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    assert [feed.lanes for feed in hub.feeds] == [(lane,) for lane in range(LANES)]
    here, there = next(ids_of(store, away=False)), next(ids_of(store, away=True))
    for id in (here, there):
        await store.create(NewOperation(id=id))
    (well, one), (cut, other) = await watch(hub, here), await watch(hub, there)
    upper.stop()
    await eventually(lambda: {it.lanes[0] for it in hub.feeds if not it.connected} == UPPER, "its lanes are away")
    await store.publish(here, [line()])
    await eventually(lambda: well.numbers == [-1, 2], "the other lanes go on")
    with pytest.raises(errors.StorageUnavailable):
        await store.publish(there, [line()])
    assert not cut.closed
    upper.start()
    await store.publish(there, [line()])
    await eventually(lambda: cut.numbers == [-1, 2], "what comes afterwards is told")
    assert [feed.interruptions for feed in hub.feeds] == [lane in UPPER for lane in range(LANES)]
    await eventually(lambda: hub.connected, "all lanes are back")
    await eventually(lambda: "interrupted" in caplog.text, "it is logged")
    (told,) = [it.getMessage() for it in caplog.records if "interrupted" in it.getMessage()]
    assert told.startswith("the feeds of lanes 8-15 are interrupted, reconnecting: ")
    for subscription in (one, other):
        subscription.close()


async def test_a_hub_starts_without_some_lanes(store: Store, upper: RealRedis) -> None:
    here = next(ids_of(store, away=False))
    await store.create(NewOperation(id=here))
    upper.stop()
    async with Hub(store, store.settings) as hub:
        async with asyncio.timeout(60):
            await hub.started()
        assert {feed.lanes[0] for feed in hub.feeds if not feed.connected} == UPPER
        upper.start()
        await eventually(lambda: hub.connected, "they are back")


async def test_a_server_starts_without_some_lanes(
    store: Store, pair: tuple[RealRedis, RealRedis], settings: Settings
) -> None:
    pair[0].stop()  # the other has what all servers must agree on
    async with await opened(pair, settings) as late:
        app = create_app(settings, late)
        async with app.router.lifespan_context(app):
            await eventually(lambda: hasattr(app.state, "context"), "it has started")
            hub = app.state.context.hub
            await eventually(lambda: hub.ready and hub.lanes_away.keys() == set(range(LANES)) - UPPER, "it is ready")
            await app.state.context.hub.masters.refresh()
            assert app.state.context.hub.masters.memory_used > 0
            pair[0].start()
            await eventually(lambda: not hub.lanes_away, "all is proved")


async def test_readiness_and_new_streams_are_a_lane_s_own(
    store: Store, hub: Hub, http: httpx.AsyncClient, upper: RealRedis
) -> None:
    here, there = next(ids_of(store, away=False)), next(ids_of(store, away=True))
    for id in (here, there):
        await store.create(NewOperation(id=id))
    await eventually(lambda: not hub.lanes_away, "all is proved")
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    upper.stop()
    await eventually(lambda: hub.lanes_away == dict.fromkeys(UPPER, "redis away"), "its lanes are away")
    assert hub.lane_state(0) is None
    assert hub.ready
    answer = await http.get("/readyz")
    known = answer.json()
    assert (answer.status_code, known["status"], known["lanes"]) == (200, "ready", LANES)
    assert set(known["away"]) == UPPER
    assert known["detail"].startswith("lanes 8-15 of 16: Redis does not answer")
    answer = await http.get("/readyz?all=1")
    assert (answer.status_code, answer.json()["reason"], set(answer.json()["away"])) == (503, "redis away", UPPER)
    told = (await http.get("/metrics")).text
    for metric in (f"lanes {LANES}.0", f"lanes_away {len(UPPER)}.0", "feed_connected 0.0", "ready 1.0"):
        assert f"progress_broker_{metric}\n" in told
    with pytest.raises(errors.StorageUnavailable):
        await hub.subscribe(there, Start())
    (await watch(hub, here))[1].close()
    proved_at = hub.probes[0].proved_at
    await eventually(lambda: hub.probes[0].proved_at > proved_at, "the other lanes are proved again")
    upper.start()
    await eventually(lambda: not hub.lanes_away, "all is proved again")
    (await watch(hub, there))[1].close()


async def test_without_any_lane_it_is_not_ready(
    hub: Hub, http: httpx.AsyncClient, pair: tuple[RealRedis, RealRedis]
) -> None:
    await eventually(lambda: not hub.lanes_away, "all is proved")
    for server in pair:
        server.stop()
    await eventually(lambda: hub.lanes_away == dict.fromkeys(range(LANES), "redis away"), "all are away")
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["reason"], hub.ready) == (503, "redis away", False)


async def test_a_server_that_hangs_delays_nobody_s_proof_but_its_own(hub: Hub, upper: RealRedis) -> None:
    await eventually(lambda: not hub.lanes_away, "all is proved")
    upper.send(signal.SIGSTOP)
    try:
        await eventually(lambda: hub.lanes_away.keys() == UPPER, "its lanes are away")
        before = hub.probes[0].proved_at
        await eventually(lambda: hub.probes[0].proved_at > before, "the other lanes are proved again")
        assert hub.lanes_away.keys() == UPPER
    finally:
        upper.send(signal.SIGCONT)
    await eventually(lambda: not hub.lanes_away, "all is proved again")


@pytest.fixture(params=["killed", "hung"])
async def take_away(request: pytest.FixtureRequest, upper: RealRedis) -> AsyncIterator[Callable[[], None]]:
    """What makes the server of the upper lanes refuse connections, or answer nothing."""
    if request.param == "killed":
        yield lambda: upper.stop() and None
    else:
        yield lambda: upper.send(signal.SIGSTOP)
        upper.send(signal.SIGCONT)


async def test_listings_have_what_can_be_reached_and_tell_what_is_missing(
    store: Store, http: httpx.AsyncClient, take_away: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = islice(ids_of(store, away=False), 3), islice(ids_of(store, away=True), 3)
    made = [id for pair in zip(here, there, strict=True) for id in pair]
    for id in made:
        await store.create(NewOperation(id=id, kind="job", owner="ann", tags=["red"]))
        await asyncio.sleep(0.002)  # no two are of the same millisecond
    query = "/v1/operations?kind=job&owner=ann&tag=red&limit=2"
    whole = (await http.get(query)).json()
    assert whole.keys() == {"operations", "next_cursor"}
    assert [it["id"] for it in whole["operations"]] == made[:-3:-1]
    take_away()
    pages = []
    cursor = whole["next_cursor"]  # of a time when all were there
    while cursor:
        answer = await http.get(f"{query}&cursor={cursor}")
        assert answer.status_code == 200
        pages.append(answer.json())
        cursor = pages[-1]["next_cursor"]
    assert [it["id"] for page in pages for it in page["operations"]] == made[2::-2]
    assert {page["partial"] for page in pages} == {True}
    assert all(set(page["lanes_away"]) == UPPER for page in pages)
    assert [it.id for it in (await OverRedis(store).find(Filters(), 9, None))[0]] == made[-2::-2]
    for filters in (Filters(), Filters(kinds=("job",), owners=("ann",))):
        parts = [part async for part in walk(store, filters)]
        assert {it.id for part in parts for it in part.operations} == set(made[::2])
        assert set(parts[-1].lanes_away) == UPPER
        counted = await count_operations(store, filters)
        assert (counted.total, set(counted.lanes_away)) == (3, UPPER)
    assert "operations are missing in this list: lanes 8-15 can't be reached now" in caplog.text


async def test_sums_are_told_to_be_of_a_part_and_have_no_percentage(
    store: Store, hub: Hub, http: httpx.AsyncClient, take_away: Callable[[], None]
) -> None:
    parent, known, *here = islice(ids_of(store, away=False), 4)
    there = list(islice(ids_of(store, away=True, prefix="child"), 2))
    for id in (parent, known):
        await store.create(NewOperation(id=id))
    for id in (*here, *there):
        await store.create(NewOperation(id=id, parent=parent))
    for id in (here[0], there[0]):
        await store.publish(id, [encode("end", {"status": "succeeded"}, store.settings)], attempt=1)
    whole = (await http.get(f"/v1/operations/{parent}")).json()
    assert whole["children"] == {"total": 4, "done": 2, "failed": 0, "cancelled": 0, "running": 0, "percent": 50.0}
    assert whole["progress"] == {"percent": 50.0, "rolled_up": True}
    subscription = await hub.subscribe(parent, Start(), Delivery(children=True))
    watched = Outlet(subscription)
    subscription.attach(watched)
    take_away()
    part = (await http.get(f"/v1/operations/{parent}?include=children")).json()
    listed = [it["id"] for it in part["children"].pop("operations")]
    assert sorted(listed) == sorted(here)
    counts = {"total": 2, "done": 1, "failed": 0, "cancelled": 0, "running": 0}
    assert part["children"] == {**counts, "percent": None, "partial": True}
    assert part["progress"] is None
    hub.families.invalidate()
    await store.publish(here[1], [encode("end", {"status": "succeeded"}, store.settings)], attempt=1)
    await eventually(lambda: b'"done":3' in watched.frames[-1].wire, "those who watch keep what they know")
    last = orjson.loads(watched.frames[-1].wire.partition(b"data: ")[2])["data"]
    assert (last["total"], last["percent"], len(last["operations"])) == (4, 75.0, 4)
    assert "partial" not in last
    subscription.close()


async def test_a_cancel_reaches_what_it_can_and_tells_what_it_did_not(
    store: Store, http: httpx.AsyncClient, upper: RealRedis
) -> None:
    parent, here = islice(ids_of(store, away=False), 2)
    there = next(ids_of(store, away=True))
    await store.create(NewOperation(id=parent))
    for id in (here, there):
        await store.create(NewOperation(id=id, parent=parent))
    upper.stop()
    answer = await http.post(f"/v1/operations/{parent}/cancel")
    assert answer.status_code == 503
    assert "children of operation-" in answer.json()["detail"]
    assert "in lanes 8-15 were not reached" in answer.json()["detail"]
    for id in (parent, here):
        assert (await store.get(id)).status == "cancelled"
    upper.start()
    assert (await http.post(f"/v1/operations/{parent}/cancel")).status_code in (200, 202)
    assert (await store.get(there)).status == "cancelled"


async def test_without_any_lane_reads_fail(
    store: Store, http: httpx.AsyncClient, pair: tuple[RealRedis, RealRedis]
) -> None:
    for server in pair:
        server.stop()
    answer = await http.get("/v1/operations")
    assert (answer.status_code, answer.json()["type"]) == (503, "storage-unavailable")


async def test_leases_of_a_lane_that_was_away_are_not_acted_on_before_its_workers_could_be_heard(
    store: Store, take_away: Callable[[], None], upper: RealRedis
) -> None:
    here, there = next(ids_of(store, away=False)), next(ids_of(store, away=True))
    now = 100.0
    reaper = Reaper(store, grace_s=5, clock=lambda: now)
    for id in (here, there):
        await store.create(NewOperation(id=id))
        begun = NewEvent("status", b'{"status":"running","attempt":1}', "running")
        await store.publish(id, [begun], attempt=1)
        await store.connections.commands.zadd(store.keyspace.operation(id).lane.leases, {id: 1})
    await reaper._reap_once()
    assert [(await store.get(id)).status for id in (here, there)] == ["running"] * 2, "the server has just started"
    take_away()
    now += 6
    await reaper._reap_once()
    assert (await store.get(here)).status == "stalled"
    assert await store.upkeep.sweep() == 0
    upper.send(signal.SIGCONT)
    if upper.popen is not None and upper.popen.poll() is not None:
        upper.start()
    now += 4
    await reaper._reap_once()
    assert (await store.get(there)).status == "running", "its worker has some time"
    now += 6
    await reaper._reap_once()
    assert (await store.get(there)).status == "stalled"


async def test_silent_operations_are_compared_in_the_other_lanes(
    store: Store, hub: Hub, take_away: Callable[[], None]
) -> None:
    here, there = next(ids_of(store, away=False)), next(ids_of(store, away=True))
    for id in (here, there):
        await store.create(NewOperation(id=id))
    (well, one), (_, other) = await watch(hub, here), await watch(hub, there)
    take_away()
    keys = store.keyspace.operation(here)
    await store.connections.commands.xadd(keys.log, {"n": 2, "t": "log", "d": "{}"})
    await store.connections.commands.hset(keys.snapshot, "n", 2)
    await eventually(lambda: well.numbers == [-1, 2], "an event that the feed lost is found")
    for subscription in (one, other):
        subscription.close()


async def test_callers_of_the_other_lanes_share_their_limits_and_others_are_limited_by_each_replica(
    store: Store, upper: RealRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "SETTLE_S", 3600)
    monkeypatch.setattr(limiter, "TIMEOUT_S", 20)  # the machine may be busy
    settings = make_settings(requests_per_s=1, max_streams_per_principal=1)
    store.settings = settings
    tallies = Tally(), Tally()
    one, other = (Limiter(settings, tally, lambda: 100.0) for tally in tallies)
    here, there = (
        next(who for who in map("={}".format, count()) if is_upper(store.keyspace.caller(who).requests) == away)
        for away in (False, True)
    )
    async with one.shared(store), other.shared(store):
        upper.stop()
        assert one.requests is not None
        assert other.requests is not None
        for who in (here, there):
            while not one.requests.take(who, 1, 100.0):
                pass
            other.requests.take(who, 1, 100.0)
        for replica in (one, other):
            async with asyncio.timeout(60):
                await replica.settle()
        assert other.requests.take(here, 1, 100.0) > 0, "what was spent elsewhere counts"
        assert other.requests.take(there, 1, 100.0) == 0
        assert [tally.limiter_mode_changes["alone"] for tally in tallies] == [1, 1]
        assert await one.stream_slot(here, "a")
        with pytest.raises(errors.TooManyStreams):
            await other.stream_slot(here, "b")


async def test_a_takeover_is_told_in_any_lane_that_can_be_reached(store: Store, hub: Hub, upper: RealRedis) -> None:
    gone: list[str] = []
    takeover = Takeover(store)
    hub.internal_handlers[REPLACED] = takeover.received
    hashed = ((tab, sha256(tab.encode()).hexdigest()[:32]) for tab in map("tab {}".format, count()))
    identifier = next(tab for tab, hash in hashed if not is_upper(f"{store.keyspace.prefix}:newest:{hash}"))
    first = next(f"{number}" for number in count(1000) if crc32(f"{number}".encode()) % LANES in UPPER)
    await takeover.claim(identifier, first, lambda: gone.append(first))
    upper.stop()
    await takeover.claim(identifier, "9999999", lambda: gone.append("the newest"))
    await eventually(lambda: gone == [first], "it is told by another lane")
    await takeover.check_all()
    assert gone == [first]


MINE = OperationQuery(terms=frozenset({b"owner:ann"}))


async def test_a_stream_of_many_begins_without_the_lanes_that_are_away_and_goes_on_with_them(
    store: Store, hub: Hub, upper: RealRedis
) -> None:
    here, there = list(islice(ids_of(store, away=False), 2)), list(islice(ids_of(store, away=True), 2))
    for id in (here[0], there[0]):
        await store.create(NewOperation(id=id, owner="ann"))
    before = await follow(hub, MINE)
    await eventually(lambda: before.numbers(here[0]) == before.numbers(there[0]) == [-1], "it has all there is")
    cursor = before.leave().cursor
    await store.publish(there[0], [line()])
    upper.stop()
    await eventually(lambda: not any(feed.connected for feed in hub.feeds[LANES // 2 :]), "its feeds are away")
    fresh, back, named = await follow(hub, MINE), await follow(hub, MINE, cursor), await follow(hub, naming(*there))
    for client in (fresh, back):
        told = client.events("operations")[0]
        assert (told["operations"], set(cast(list[int], told["lanes_away"]))) == ([here[0]], UPPER)
    assert named.events("operations")[0]["operations"] == []
    assert set(cast(list[int], named.events("operations")[0]["lanes_away"])) == set(map(store.keyspace.lane_of, there))
    await eventually(lambda: fresh.numbers(here[0]) == [-1], "it has what can be reached")
    await store.publish(here[0], [line()])
    await eventually(lambda: fresh.numbers(here[0]) == [-1, 2], "the others go on")
    await eventually(lambda: back.numbers(here[0]) == [2], "also for who comes back")
    again = back.leave().cursor
    assert not named.closed, "what it names may still run"
    gone_on = await follow(hub, MINE, again)
    upper.start()
    await eventually(lambda: named.events("missing"), "its lanes have begun")
    await store.create(NewOperation(id=there[1], owner="ann"))
    for client, numbers in ((fresh, [-2]), (gone_on, [2]), (named, [-2])):
        await eventually(lambda client=client, numbers=numbers: client.numbers(there[0]) == numbers, "it is told")
        await eventually(lambda client=client: client.numbers(there[1]) == [-1], "and what is new")
    assert [it["operation"] for it in named.events("missing")] == [there[1]]
    for id in (*there, here[0]):
        await store.publish(id, [encode("end", {"status": "succeeded"}, store.settings)])
    await eventually(lambda: named.closed, "it closes once all have ended")
    ends = {here[0]: 3, there[0]: 3, there[1]: 2}
    for client in (fresh, gone_on):
        await eventually(lambda client=client: {id: client.numbers(id)[-1] for id in ends} == ends, "the ends are told")
    assert (await follow(hub, MINE, fresh.cursor)).events("operations")[0] == {"event": "operations", "operations": []}
    for client in (fresh, gone_on):
        client.leave()


async def test_what_workers_send_and_wait_for_is_a_lane_s_own(
    store: Store, http: httpx.AsyncClient, take_away: Callable[[], None]
) -> None:
    here, there = next(ids_of(store, away=False)), next(ids_of(store, away=True))
    for id in (here, there):
        await store.create(NewOperation(id=id))
    take_away()
    await store.signal(here, NewSignal(type="pause"))
    sent = [{"operation": id, "events": [{"type": "log", "data": {"message": "m"}}]} for id in (there, here)]
    answer = await http.post("/v1/workers/publish", json=sent)
    assert answer.status_code == 200
    assert [it.get("error") for it in answer.json()] == ["storage-unavailable", None]
    answer = await http.post("/v1/workers/signals", json={"positions": {there: "0-0", here: "0-0"}})
    assert [(it["operation"], it["type"]) for it in answer.json()["signals"]] == [(here, "pause")]
    answer = await http.post("/v1/workers/publish", json=sent[:1])
    assert answer.status_code == 200, "it is no reason to send nothing else"
    assert [it["error"] for it in answer.json()] == ["storage-unavailable"]


async def test_who_waits_for_signals_in_a_lane_is_woken_once_it_is_back(
    store: Store, hub: Hub, upper: RealRedis
) -> None:
    here, there = next(ids_of(store, away=False)), next(ids_of(store, away=True))
    upper.stop()
    await eventually(lambda: not any(feed.connected for feed in hub.feeds[LANES // 2 :]), "it is away")
    with hub.signal_waits.waiting([here, there]) as wait:
        upper.start()
        async with asyncio.timeout(60):
            assert await wait.changed([here, there]) == [there]
