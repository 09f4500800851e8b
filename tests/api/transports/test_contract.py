"""The guarantees for a listener hold with every transport."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import orjson
import pytest

from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.api.test_operations import OPS, create, finish, publish
from tests.api.transports.transports import LAST, OVER, TRANSPORTS, Told, Transport, whole
from tests.conftest import make_settings
from tests.losses import Remembered
from tests.servers import eventually


@pytest.fixture
def settings() -> Settings:
    """Small limits, so that few events are enough to use the ring buffer, pages and the log."""
    return make_settings(history_length=300, ring_length=16, page_length=10, max_body_bytes=10_000_000)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, base_url: str) -> Transport:
    return TRANSPORTS[request.param](base_url)


def listening(
    transport: Transport, after: str | None = None, operation: str = "a", **query: object
) -> "aclosing[AsyncGenerator[Told]]":
    return aclosing(transport.listen(operation, after, **query))


async def take(told: AsyncIterator[Told], count: int) -> list[Told]:
    return [await anext(told) for _ in range(count)]


async def log(http: httpx.AsyncClient, count: int, message: str = "m", operation: str = "a") -> None:
    body = [{"type": "log", "data": {"message": f"{message}{i}"}} for i in range(count)]
    (await http.post(f"{OPS}/{operation}/events", json=body)).raise_for_status()


def numbers(told: list[Told]) -> list[int]:
    return [each.n for each in told if each.event not in (*LAST, "snapshot")]


async def test_a_fresh_listener_is_told_the_operation_and_then_each_event(
    http: httpx.AsyncClient, transport: Transport
) -> None:
    await create(http, id="a")
    await log(http, 3)
    async with listening(transport) as told:
        first = await anext(told)
        assert (first.event, first.n, first.data.get("reset")) == ("snapshot", 4, None)
        assert first.data["data"] == (await http.get(f"{OPS}/a")).json()
        assert first.id == first.data["data"]["position"]
        for n in range(5, 9):
            await publish(http, "a", "log", {"message": str(n)})
            event = await anext(told)
            assert (event.event, event.n, event.data["data"]) == ("log", n, {"message": str(n)})
            assert event.data["time"] == int(event.id.partition("-")[0])
        await finish(http, "a")
        assert [(each.event, each.reason) for each in await take(told, 2)] == [("end", ""), ("over", "")]


async def test_a_fresh_listener_to_what_has_ended_learns_how_and_that_nothing_follows(
    http: httpx.AsyncClient, transport: Transport
) -> None:
    await create(http, id="a")
    await finish(http, "a", "failed")
    told = await whole(transport)
    assert told[0].event == "snapshot"
    assert told[0].id == "", "one cut off before the end must not take it for seen"
    assert told[0].data["data"]["status"] == "failed"
    assert [each.data["data"]["status"] for each in told if each.event == "end"] == ["failed"] * transport.streams
    assert told[-1] == OVER


async def test_after_each_position_what_followed_comes_once(http: httpx.AsyncClient, transport: Transport) -> None:
    await create(http, id="a")
    await log(http, 20)  # more than a page, and than the ring
    await finish(http, "a")
    history = (await http.get(f"{OPS}/a/events?limit=1000")).json()["events"]
    at = {event["n"]: (await http.get(f"{OPS}/a/events?limit={event['n']}")).json()["position"] for event in history}
    assert numbers(await whole(transport, after="0-0")) == list(range(1, 23))
    assert numbers(await whole(transport, **{"from": "start"})) == list(range(1, 23))
    for n in range(1, 22):
        told = await whole(transport, after=at[n])
        assert numbers(told) == list(range(n + 1, 23))
        assert [each.event for each in told[-2:]] == ["end", "over"]


async def test_after_the_end_nothing_follows_however_often_one_asks(
    http: httpx.AsyncClient, transport: Transport
) -> None:
    await create(http, id="a")
    await finish(http, "a")
    end = (await http.get(f"{OPS}/a")).json()["position"]
    for _ in range(2):
        assert await whole(transport, after=end) == [OVER]


async def test_cut_again_and_again_a_listener_is_told_each_event_once(
    http: httpx.AsyncClient, transport: Transport
) -> None:
    position = str((await create(http, id="a"))["position"])
    chance = random.Random(7)

    async def work() -> None:
        for i in range(60):
            await log(http, chance.randint(1, 3), f"{i}.")
            await asyncio.sleep(chance.uniform(0, 0.01))
        await finish(http, "a")

    working = asyncio.create_task(work())
    got: list[int] = []
    over = False
    while not over:
        async with listening(transport, position) as told:
            for _ in range(chance.randint(1, 12)):
                each = await anext(told)
                over = each == OVER
                if over:
                    break
                got.append(each.n)
                position = each.id
    await working
    assert len(got) > 60
    assert got == list(range(2, got[-1] + 1))


@pytest.mark.parametrize("reset", ["trimmed", "lost"])
async def test_what_can_not_be_told_is_told_to_be_so(http: httpx.AsyncClient, transport: Transport, reset: str) -> None:
    made = await create(http, id="a")
    for _ in range(9):
        await log(http, 100)
    async with listening(transport, made["position"] if reset == "trimmed" else "99999999999999-0") as told:
        snapshot = await anext(told)
        assert (snapshot.event, snapshot.data["reset"], snapshot.data["data"]["events"]) == ("snapshot", reset, 901)
        if reset == "lost":  # nobody knows which of the kept events it has
            *others, last = [each.n for each in await take(told, 600)]
            while last < 901:
                others.append(last)
                last = (await anext(told)).n
            assert [*others, last] == [*range(others[0], 902)]
        await log(http, 1)
        assert (await anext(told)).n == 902
    await finish(http, "a")
    assert numbers(await whole(transport, after=snapshot.id))[-2:] == [902, 903]


async def test_one_who_listens_when_history_is_lost_goes_on_from_a_snapshot(
    http: httpx.AsyncClient, store: Store, transport: Transport
) -> None:
    await create(http, id="a")
    await log(http, 9)
    async with listening(transport) as told:
        assert (await anext(told)).n == 10
        await log(http, 1)
        last = await anext(told)
        assert last.n == 11
        await store.connections.commands.flushall()
        await create(http, id="a")
        await log(http, 1)
        said = await anext(told)
        if transport.streams:  # it has to be allowed again: who created it now may be somebody else
            assert said == Told("away", reason="lost")
    if transport.streams:
        async with listening(transport, after=last.id) as told:
            said = await anext(told)
    assert (said.event, said.data["reset"]) == ("snapshot", "lost")
    await finish(http, "a")
    assert [each.event for each in await whole(transport, after=said.id)][-1] == "over"


async def test_one_who_listens_when_history_is_lost_is_told_all_that_is_stored(
    http: httpx.AsyncClient, store: Store, transport: Transport
) -> None:
    await create(http, id="a")
    await log(http, 9, "both have ")
    before = await Remembered.of(store, "a")
    async with listening(transport) as told:
        shared = await anext(told)
        await log(http, 3, "lost ")
        assert numbers(await take(told, 3)) == [11, 12, 13]
        await before.lose_the_rest()
        await log(http, 30, "stored ")
        reset = await anext(told)
        assert (reset.event, reset.data["reset"]) == ("snapshot", "lost")
        first = {shared.id: 11, "0-0": 1}[reset.id]  # a position alone does not show what it has
        assert reset.data["data"]["events"] > 10
        others = await take(told, 41 - first)
        assert numbers(others) == [*range(first, 41)]
        assert [each.data["data"]["message"] for each in others[-30:]] == [f"stored {i}" for i in range(30)]
        await finish(http, "a")
        assert [each.event for each in await take(told, 2)] == ["end", "over"]


async def test_one_who_comes_back_after_history_is_lost_is_told_all_that_is_stored(
    http: httpx.AsyncClient, store: Store, transport: Transport
) -> None:
    await create(http, id="a")
    await log(http, 9, "both have ")
    before = await Remembered.of(store, "a")
    async with listening(transport) as told:
        await anext(told)
        await log(http, 3, "lost ")
        *_, last = await take(told, 3)
    await before.lose_the_rest()
    await log(http, 30, "stored ")
    await finish(http, "a")
    reset, *others = await whole(transport, after=last.id)
    assert (reset.event, reset.data["reset"], reset.id) == ("snapshot", "lost", "0-0")
    assert reset.data["data"]["status"] == "succeeded"
    assert numbers(others) == [*range(1, 42)]
    assert [each.event for each in others] == ["status", *["log"] * 39, "end", "over"]
    messages = [*(f"both have {i}" for i in range(9)), *(f"stored {i}" for i in range(30))]
    assert [each.data["data"]["message"] for each in others[1:-2]] == messages


async def test_an_unknown_operation_is_rejected(transport: Transport) -> None:
    for after in (None, "1-1"):
        assert await whole(transport, "nope", after) == [Told("rejected", reason="not-found")]


async def test_what_is_no_position_is_rejected(http: httpx.AsyncClient, transport: Transport) -> None:
    await create(http, id="a")
    for position in ("x", "1", "1-1-1", "9" * 400):
        assert await whole(transport, after=position) == [Told("rejected", reason="invalid")]


async def test_an_empty_position_counts_as_none(http: httpx.AsyncClient, transport: Transport) -> None:
    await create(http, id="a")
    await finish(http, "a")
    as_none = await whole(transport) if transport.streams else [Told("rejected", reason="invalid")]
    assert await whole(transport, after="") == as_none


async def test_what_is_no_type_is_rejected(http: httpx.AsyncClient, transport: Transport) -> None:
    await create(http, id="a")
    for types in ("", "a,B", ",".join("a" * 33)):
        assert await whole(transport, after="0-0", types=types) == [Told("rejected", reason="invalid")]


async def test_a_deleted_operation_is_gone(http: httpx.AsyncClient, transport: Transport) -> None:
    await create(http, id="a")
    async with listening(transport) as told:
        position = (await anext(told)).id
        await http.delete(f"{OPS}/a?force=true")
        said = await anext(told)
    if said.event == "away":  # an EventSource can only be asked to reconnect
        assert said.reason == "gone"
    else:
        assert said == Told("rejected", reason="gone")
    for after in (None, position):
        assert await whole(transport, after=after) == [Told("rejected", reason="gone")]


async def test_an_operation_that_is_yet_to_be_created_is_awaited(http: httpx.AsyncClient, transport: Transport) -> None:
    async with listening(transport, wait_s=20) as told:
        first = asyncio.ensure_future(anext(told))
        await asyncio.sleep(0.1)  # so that it is probably waiting by then
        await create(http, id="a")
        assert (await first).event == "snapshot"
        await finish(http, "a")
        assert [each.event for each in await take(told, 2)] == ["end", "over"]


async def test_one_that_never_appears_is_awaited_in_vain(transport: Transport) -> None:
    [told] = await whole(transport, wait_s=0.1)
    assert told.event in ("away", "rejected")
    assert told.reason == "not-found"


async def test_a_slow_listener_loses_nothing_but_superseded_progress(
    app: Any, http: httpx.AsyncClient, transport: Transport
) -> None:
    await create(http, id="a")
    progress = [{"type": "progress", "data": {"current": i}} for i in range(5)]
    async with listening(transport) as told:
        assert (await anext(told)).event == "snapshot"
        for _ in range(10):  # nobody reads meanwhile, and it is more than all buffers can hold
            big = [{"type": "log", "data": {"message": "x" * 60_000}}] * 20
            (await http.post(f"{OPS}/a/events", json=big + progress)).raise_for_status()
        if transport.streams:
            assert sum(app.state.context.hub.tally.slowed.values()), "it was never slow"
        await finish(http, "a")
        rest = [each async for each in told]
    assert rest[-1] == OVER
    assert numbers(rest) == sorted(set(numbers(rest)))
    assert sum(each.event == "log" for each in rest) == 200
    assert rest[-3].data["data"] == {"current": 4}


async def test_an_interrupted_feed_loses_nothing(
    app: Any, http: httpx.AsyncClient, store: Store, transport: Transport
) -> None:
    await create(http, id="a")
    [feed] = app.state.context.hub.feeds
    async with listening(transport) as told:
        assert (await anext(told)).n == 1
        for round in range(3):
            before = feed.interruptions
            await store.connections.commands.client_kill_filter(_type="normal", skipme=True)
            await log(http, 10)
            assert [each.n for each in await take(told, 10)] == list(range(2 + 10 * round, 12 + 10 * round))
            await eventually(lambda before=before: feed.interruptions > before, "the feed was interrupted")
            await eventually(lambda: feed.connected, "it is read again")
        await finish(http, "a")
        assert [each.event for each in await take(told, 2)] == ["end", "over"]


async def test_a_server_that_stops_sends_its_listeners_away(
    app: Any, http: httpx.AsyncClient, transport: Transport
) -> None:
    await create(http, id="a")
    await log(http, 2)
    hub = app.state.context.hub
    async with listening(transport) as told:
        position = (await anext(told)).id
        waiting = asyncio.ensure_future(anext(told))
        await eventually(
            lambda: any(s.mode.value == "live" for c in hub.channels for s in c.subscriptions), "it listens"
        )
        hub.drain()
        assert await waiting == Told("away", reason="draining")
    await log(http, 2)
    if transport.streams:
        [rejected] = await whole(transport, after=position)
        assert rejected.reason == "draining"


async def test_types_filter_but_the_end_always_comes(http: httpx.AsyncClient, transport: Transport) -> None:
    await create(http, id="a")
    for type, data in (
        ("log", {"message": "m"}),
        ("progress", {"current": 1}),
        ("custom", 1),
        ("log", {"message": "n"}),
    ):
        await publish(http, "a", type, data)
    async with listening(transport, "0-0", types="custom,progress") as told:
        assert [each.event for each in await take(told, 2)] == ["progress", "custom"]
        await log(http, 20)
        await publish(http, "a", "custom", 2)
        custom = await anext(told)
        assert (custom.event, custom.data["data"]) == ("custom", 2)
        await finish(http, "a")
        assert [each.event for each in await take(told, 2)] == ["end", "over"]
    assert [each.event for each in await whole(transport, after=custom.id, types="log")] == ["end", "over"]


@pytest.mark.parametrize(
    "text",
    [
        '{"message":"naïve ☃ 🚀 \u2028\u2029\ufeff"}',
        '{"message":"line\\nbreak \\r\\n \\u0000 data: event: id: \\\\ \\" {}"}',
        '{"big":123456789012345678901234567890,"small":1e-400,"neg":-0.0,"dup":1,"dup":2}',
        "[[],{},null,true]",
        '"' + "é" * 30_000 + '"',
    ],
)
async def test_what_was_published_comes_as_it_was(http: httpx.AsyncClient, transport: Transport, text: str) -> None:
    await create(http, id="a")
    body = ('{"type":"custom","data":' + text + "}").encode()
    (await http.post(f"{OPS}/a/events", content=body)).raise_for_status()
    await finish(http, "a")
    custom = (await whole(transport, after="0-0"))[1]
    assert custom.data["data"] == (await http.get(f"{OPS}/a/events")).json()["events"][1]["data"]
    assert custom.data["data"] == orjson.loads(text)


class TestThosePushedTo:
    @pytest.fixture(params=[name for name, kind in TRANSPORTS.items() if kind.streams])
    def transport(self, request: pytest.FixtureRequest, base_url: str) -> Transport:
        return TRANSPORTS[request.param](base_url)

    async def test_have_a_pace(self, http: httpx.AsyncClient, transport: Transport) -> None:
        await create(http, id="a")
        async with listening(transport, interval_ms=60_000) as told:
            got = [await anext(told)]
            for i in range(20):
                await publish(http, "a", "progress", {"current": i})
            await log(http, 1)
            await finish(http, "a")
            got += [each async for each in told]
        assert [each.event for each in got] == ["snapshot", "status", "progress", "progress", "log", "end", "over"]
        assert [each.data["data"]["current"] for each in got if each.event == "progress"] == [0, 19]

    async def test_may_be_told_of_children(self, http: httpx.AsyncClient, transport: Transport) -> None:
        await create(http, id="a")
        await create(http, id="b", parent="a")
        async with listening(transport, children=True) as told:
            snapshot, children = await take(told, 2)
        assert (snapshot.event, children.event, children.id) == ("snapshot", "children", "")
        assert [brief["id"] for brief in children.data["data"]["operations"]] == ["b"]

    class TestAges:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(stream_max_age_s=0.3)

        async def test_are_sent_away_when_old_and_resume(self, http: httpx.AsyncClient, transport: Transport) -> None:
            await create(http, id="a")
            snapshot, last = await whole(transport)
            assert (snapshot.event, last) == ("snapshot", Told("away", reason="max-age"))
            await finish(http, "a")
            assert numbers(await whole(transport, after=snapshot.id)) == [2]
