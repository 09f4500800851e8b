"""Many operations on one stream, over both outlets, as clients see it."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from progress_broker.bundle.cursor import LanePosition, parse, write
from progress_broker.settings import Settings
from progress_broker.stream.stream import Mode
from tests import sse
from tests.api import proofs
from tests.api.raw import Client, request
from tests.api.test_operations import create, finish, problem, publish
from tests.cases import case
from tests.conftest import make_settings
from tests.servers import eventually

STREAM = "/v1/stream"


@pytest.fixture(params=["adopted", "asgi"])
def outlet(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def settings() -> Settings:
    return make_settings(ping_s=0.3, ring_length=16, page_length=10, max_operations_per_stream=10, lanes=3)


async def whole(http: httpx.AsyncClient, **query: Any) -> list[sse.Message]:
    """Return a stream's messages, once it has ended."""
    answer = await http.get(STREAM, params=query)
    assert answer.status_code == 200, answer.text
    return sse.read(answer.content)


async def until(
    http: httpx.AsyncClient, enough: Callable[[list[sse.Message]], bool], **query: Any
) -> list[sse.Message]:
    """Return the messages of a stream until a condition holds."""
    text = b""
    async with asyncio.timeout(60), http.stream("GET", STREAM, params=query) as answer:
        assert answer.status_code == 200
        async for some in answer.aiter_bytes():
            text += some
            if enough(sse.read(text)):
                return sse.read(text)
    raise AssertionError(f"it ended after {text!r}")


def told(messages: list[sse.Message]) -> list[tuple[str, str]]:
    return [(message.json["operation"], message.type) for message in messages if "n" in message.json]


async def test_a_query_by_metadata_finds_what_was_created_with_it(http: httpx.AsyncClient) -> None:
    await create(http, id="a", metadata={"customer": 42, "eu": True})
    await create(http, id="b", metadata={"customer": 42})
    await create(http, id="c")
    await publish(http, "c", "metadata", {"customer": 42})  # the fields that a query looks at never change
    await publish(http, "a", "metadata", {"customer": None})
    operations, *_ = await until(http, lambda messages: len(messages) >= 2, metadata="customer:42")
    assert operations.json["operations"] == ["a", "b"]
    operations, *_ = await until(http, lambda messages: len(messages) >= 2, metadata=["customer:42", "eu:true"])
    assert operations.json["operations"] == ["a"]
    problem(await http.get(STREAM, params={"metadata": "customer"}), 422, "invalid")


async def test_named_ones_are_told_to_their_ends_and_a_reconnect_gets_204(http: httpx.AsyncClient) -> None:
    for id in ("a", "b"):
        await create(http, id=id)
        await finish(http, id)
    messages = await whole(http, operation=["a", "b", "a"])
    assert sorted(told(messages)) == [("a", "end"), ("a", "snapshot"), ("b", "end"), ("b", "snapshot")]
    assert messages[0].type == "operations"
    assert sorted(messages[0].json["operations"]) == ["a", "b"]
    cursor = messages[-1].id
    for where in ({"headers": {"Last-Event-ID": cursor}}, {"params": {"last_event_id": cursor}}):
        query = {"operation": ["a", "b"]} | where.get("params", {})  # type: ignore[dict-item]
        answer = await http.get(STREAM, params=query, headers=where.get("headers"))
        assert (answer.status_code, answer.content) == (204, b"")


async def test_a_query_follows_what_comes_and_goes(base_url: str, http: httpx.AsyncClient) -> None:
    await create(http, id="a", owner="ann", tags=["eu", "x"])
    client = await Client.connect(base_url)
    client.send(request(f"{STREAM}?owner=ann&tag=eu&ping=event"))
    assert (await client.head())[0] == 200
    await client.chunk_with(b'"operation":"a"')
    await create(http, id="b", owner="ann", tags=["eu"])
    await create(http, id="c", owner="ann")
    await client.chunk_with(b'"operation":"b"')
    await publish(http, "c", "log", {"message": "unheard"})
    await http.delete("/v1/operations/b", params={"force": True})
    gone = await client.chunk_with(b"event: missing")
    assert b'data: {"operation":"b","reason":"gone"}' in gone
    await client.chunk_with(b"event: ping")
    client.close()


IMPOSSIBLE = [
    ("", 422, "invalid"),
    ("operation=a&owner=ann", 422, "invalid"),
    ("operation=%20", 422, "invalid"),
    ("operation=absent", 404, "not-found"),
    ("owner=", 422, "invalid"),
    ("operation=a&types=A", 422, "invalid"),
    ("operation=a&interval_ms=-1", 422, "invalid"),
    ("operation=a&last_event_id=1795231360001-0", 422, "invalid"),
    ("operation=a&last_event_id=zz.1", 422, "invalid"),
    ("&".join(f"operation=op-{i}" for i in range(11)), 422, "invalid"),
]


async def test_what_can_not_be_is_rejected(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for query, status, type in IMPOSSIBLE:
        with case(query):
            problem(await http.get(f"{STREAM}?{query}"), status, type)


async def test_a_query_that_finds_too_many_is_rejected(http: httpx.AsyncClient) -> None:
    for i in range(11):
        await create(http, id=f"op-{i}", kind="k")
    answer = problem(await http.get(STREAM, params={"kind": "k"}), 422, "invalid")
    assert "one stream may follow at most 10" in answer["detail"]


async def test_it_is_compressed_for_who_accepts_that(base_url: str, http: httpx.AsyncClient) -> None:
    for id in ("a", "b"):
        await create(http, id=id, title="t" * 500)
        await finish(http, id)
    client = await Client.connect(base_url)
    client.send(request(f"{STREAM}?operation=a&operation=b", "Accept-Encoding: gzip"))
    _, headers = await client.head()
    assert headers["content-encoding"] == "gzip"
    messages = sse.read(gzip.decompress(await client.body()))
    client.close()
    assert len(told(messages)) == 4


async def test_an_event_is_what_it_is_on_a_stream_of_one(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    await publish(http, "a", "log", {"message": "m"})
    await finish(http, "a")
    one = sse.read((await http.get("/v1/operations/a/stream")).content)
    many = (await whole(http, operation="a"))[1:]
    assert [(it.type, it.json) for it in many] == [(it.type, it.json) for it in one]


async def test_it_awaits_those_that_do_not_exist_if_told_to(http: httpx.AsyncClient, app: Any) -> None:
    waiting = asyncio.create_task(whole(http, operation=["a"], wait_s=10))
    bundles = app.state.context.hub.bundles
    await eventually(lambda: [bundle for bundle in bundles if bundle.mode is Mode.LIVE], "it is open")
    await create(http, id="a")
    await finish(http, "a")
    messages = await waiting
    assert [it.type for it in messages] == ["operations", "missing", "bookmark", "snapshot", "end"]
    in_vain = await whole(http, operation=["b"], wait_s=0.1)
    assert in_vain[-1].json == {"reason": "not-found"}


async def test_metrics_count_it_as_one_stream_and_a_drain_sends_it_away_once(
    base_url: str, http: httpx.AsyncClient, app: Any, outlet: str
) -> None:
    for i in range(5):
        await create(http, id=f"op-{i}", kind="k")
    client = await Client.connect(base_url)
    client.send(request(f"{STREAM}?kind=k"))
    await client.head()
    await client.chunk_with(b"event: snapshot")
    counted = (await http.get("/metrics")).text
    assert f'progress_broker_streams{{outlet="{outlet}",state="live"}} 1.0' in counted
    assert len(app.state.context.hub) == 1
    app.state.context.hub.drain()
    rest = (await client.rest()).decode()
    client.close()
    assert rest.count("event: reconnect") == 1
    assert '"reason":"draining"' in rest


async def test_a_position_that_storage_has_lost_is_told(http: httpx.AsyncClient, app: Any) -> None:
    await create(http, id="a")
    await finish(http, "a")
    lane = app.state.context.store.keyspace.lane_of("a")
    messages = await whole(http, operation="a", last_event_id=write({lane: LanePosition(b"99999999999999-1")}).decode())
    assert messages[1].json["reset"] == "lost"


async def test_wherever_it_is_cut_who_comes_back_is_told_each_end(http: httpx.AsyncClient, app: Any) -> None:
    keyspace = app.state.context.store.keyspace
    names = [f"op-{i}" for i in range(7)]
    for id in names:
        await create(http, id=id, kind="k")
    first = await until(http, lambda messages: len(told(messages)) == len(names), kind="k")
    for id in names[:2]:
        await finish(http, id)
    await http.delete(f"/v1/operations/{names[2]}", params={"force": True})
    await publish(http, names[3], "log", {"message": "m"})
    await create(http, id="new", kind="k")
    first = [message for message in first if message.type != "bookmark"]
    assert [message.type for message in first] == ["operations", *["snapshot"] * len(names)]
    awaited = {(names[0], "end"), (names[1], "end"), ("new", "snapshot")}
    for boundary in range(1, len(first) + 1):
        known = {id for id, _ in told(first[:boundary])}
        places = parse(first[boundary - 1].id, keyspace.lanes)  # as an EventSource stores it
        second = await until(
            http, lambda messages: awaited <= {*told(messages)}, last_event_id=first[boundary - 1].id, kind="k"
        )
        assert set(second[0].json["operations"]) == {*names, "new"} - {names[2]}
        again = {id for id, type in told(second) if type == "snapshot"}
        assert again <= {"new"} | {id for id in names if places[keyspace.lane_of(id)].partial}
        assert {id for id in names[:2] if id not in known} <= again
        assert not any("reset" in message.json for message in second)


async def test_who_was_away_while_too_many_ended_begins_anew_and_can_go_on(http: httpx.AsyncClient, app: Any) -> None:
    for id in ("stays", "ends"):
        await create(http, id=id, kind="k")
    first = await until(http, lambda messages: len(told(messages)) == 2, kind="k")
    for id in ("ends", *(f"brief-{i}" for i in range(8))):
        await create(http, id=id, kind="k")
        await finish(http, id)
    ends = await until(http, lambda messages: ("ends", "end") in told(messages), kind="k", last_event_id=first[-1].id)
    assert "reset" not in ends[0].json, "so many can be told"
    await create(http, id="one-more", kind="k")
    await finish(http, "one-more")
    second = await until(http, lambda messages: len(told(messages)) == 1, kind="k", last_event_id=first[-1].id)
    assert second[0].json == {"operations": ["stays"], "reset": "too-many"}
    assert told(second) == [("stays", "snapshot")]
    assert app.state.context.hub.tally.resets["too-many"] == 1
    await publish(http, "stays", "log", {"message": "m"})
    third = await until(http, lambda messages: len(told(messages)) == 1, kind="k", last_event_id=second[-1].id)
    assert third[0].json == {"operations": ["stays"]}
    assert told(third) == [("stays", "log")]
    for i in range(10):
        await create(http, id=f"more-{i}", kind="k")
    problem(await http.get(STREAM, params={"kind": "k", "last_event_id": second[-1].id}), 422, "invalid")


class TestOfOthers:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return proofs.secured(tmp_path, max_operations_per_stream=2, lanes=1)

    @pytest.mark.parametrize(
        "may",
        [
            {"scope": "read"},
            {"grants": [{"actions": ["read"], "ids": ["mine", "other-1", "none"], "tags": ["t"]}]},
            {"grants": [{"actions": ["read"], "tags": ["t"]}, {"actions": ["read"], "owners": ["alice"]}]},
        ],
    )
    async def test_however_many_there_are_they_push_nothing_out(
        self, http: httpx.AsyncClient, base_url: str, may: dict[str, Any]
    ) -> None:
        bob, alice = proofs.bearing(proofs.token("bob", proofs.ALICE)), proofs.token("alice", **may)
        for number in range(6):
            await proofs.create(http, f"other-{number}", bob, kind="k")
        creator = proofs.bearing(proofs.token("alice", proofs.ALICE))
        await proofs.create(http, "mine", creator, kind="k", tags=["t"])
        await proofs.create(http, "of-another-kind", creator, tags=["t"])
        client = await Client.connect(base_url)
        client.send(request(f"{STREAM}?kind=k", f"Authorization: Bearer {alice}"))
        assert (await client.head())[0] == 200
        assert b'{"operations":["mine"]}' in await client.chunk_with(b"event: operations")
        client.close()
