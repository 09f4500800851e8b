import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Request, Response

from progress_broker.settings import Settings
from progress_server.context import Id
from progress_server.routes.streams import stream
from progress_server.sse.adopted import AdoptedOutlet
from progress_server.sse.asgi import AsgiOutlet
from tests import sse
from tests.api.test_operations import OPS, create, finish, problem, publish
from tests.cases import case
from tests.conftest import make_settings


@pytest.fixture(params=["adopted", "asgi"])
def outlet(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def settings() -> Settings:
    return make_settings(history_length=100, ping_s=0.3, ring_length=16, page_length=10)


async def whole(
    http: httpx.AsyncClient, operation: str = "a", headers: dict[str, str] | None = None, **query: Any
) -> bytes:
    """Return a stream's bytes, once it has ended."""
    answer = await http.get(f"{OPS}/{operation}/stream", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.content


def numbers(messages: list[sse.Message]) -> list[int]:
    return [message.json["n"] for message in messages if "n" in message.json]


async def until(stream: AsyncIterator[bytes], text: bytes) -> bytes:
    """Read until the text has arrived."""
    got = b""
    async with asyncio.timeout(30):
        async for chunk in stream:
            got += chunk
            if text in got:
                return got
    raise AssertionError(f"the stream ended without {text!r}: {got!r}")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_header_of_one_is_its_own(app: Any, http: httpx.AsyncClient, encoding: str) -> None:
    @app.get("/with-cookie/{id}")
    async def with_cookie(operation: Id, request: Request) -> Response:
        response = await stream(operation, request)
        response.set_cookie("secret", operation)
        return response

    await create(http, id="a")
    said = []
    for path in ("/with-cookie/a", f"{OPS}/a/stream", "/v1/stream?operation=a"):
        async with http.stream("GET", path, headers={"Accept-Encoding": encoding}) as answer:
            said.append(answer.headers.get("set-cookie", "").partition(";")[0])
            assert answer.headers["content-type"] == "text/event-stream"
    assert said == ["secret=a", "", ""]


async def test_the_head_and_the_first_bytes(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        first = await anext(answer.aiter_bytes())
    retry, comment = first.split(b"\n")[:2]
    assert 1000 <= int(retry.removeprefix(b"retry: ")) <= 3000
    assert comment.startswith(b":")


async def test_a_head_request_gets_the_head_alone(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    answer = await http.head(f"{OPS}/a/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/event-stream"


async def test_a_fresh_stream_of_a_finished_operation(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    await finish(http, "a")
    messages = sse.read(await whole(http))
    assert [message.type for message in messages] == ["snapshot", "end"]
    assert messages[0].json["data"] == (await http.get(f"{OPS}/a")).json()
    assert messages[0].id == ""
    assert messages[1].json["data"] == {"status": "succeeded", "result": None, "error": None}


async def test_resuming_by_header_and_by_query_and_which_wins(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for i in range(30):
        await publish(http, "a", "log", {"message": str(i)})
    await finish(http, "a")
    everything = sse.read(await whole(http, **{"from": "start"}))
    assert numbers(everything) == list(range(1, 33))
    at = {message.json["n"]: message.id for message in everything}
    for n in (1, 5, 20, 31):
        assert numbers(sse.read(await whole(http, headers={"Last-Event-ID": at[n]}))) == list(range(n + 1, 33))
        assert numbers(sse.read(await whole(http, last_event_id=at[n]))) == list(range(n + 1, 33))
    both = await whole(http, headers={"Last-Event-ID": at[30]}, last_event_id=at[2], **{"from": "start"})
    assert numbers(sse.read(both)) == [31, 32]
    for query, headers in (({}, {"Last-Event-ID": at[32]}), ({"last_event_id": at[32]}, {})):
        answer = await http.get(f"{OPS}/a/stream", params=query, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")


async def test_trimmed_and_lost_positions_are_told(http: httpx.AsyncClient) -> None:
    made = await create(http, id="a")
    for i in range(3):
        await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": str(i)}}] * 100)
    await finish(http, "a")
    trimmed, lost = [
        sse.read(await whole(http, last_event_id=position)) for position in (made["position"], "99999999999999-0")
    ]
    assert [message.type for message in trimmed] == ["snapshot", "end"]
    assert trimmed[0].json["reset"] == "trimmed"
    assert (lost[0].json["reset"], lost[-1].type) == ("lost", "end")
    assert [message.json["n"] for message in lost] == list(range(lost[0].json["n"], 303)), "all that is kept"


GARBAGE: list[tuple[str, dict[str, str]]] = [
    ("last_event_id=x", {}),
    ("last_event_id=1-1%00", {}),
    ("", {"Last-Event-ID": "-1"}),
    ("", {"Last-Event-ID": "9" * 3000}),
    ("from=end", {}),
    ("types=", {}),
    ("types=a,B", {}),
    ("types=" + ",".join(["a"] * 33), {}),
    ("interval_ms=-1", {}),
    ("interval_ms=x", {}),
    ("wait_s=-1", {}),
    ("wait_s=nan", {}),
    ("ping=loud", {}),
]


async def test_garbage_is_422(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for query, headers in GARBAGE:
        with case(query, headers):
            problem(await http.get(f"{OPS}/a/stream?{query}", headers=headers), 422, "invalid")


async def test_unknown_is_404(http: httpx.AsyncClient) -> None:
    problem(await http.get(f"{OPS}/nope/stream"), 404, "not-found")
    problem(await http.get(f"{OPS}/nope/stream?last_event_id=1-1"), 404, "not-found")


async def test_awaiting_an_operation(http: httpx.AsyncClient) -> None:
    async with http.stream("GET", f"{OPS}/later/stream?wait_s=20") as answer:
        chunks = answer.aiter_bytes()
        assert answer.status_code == 200
        await until(chunks, b": connected")
        await create(http, id="later")
        await until(chunks, b"event: snapshot")
        await finish(http, "later")
        await until(chunks, b"event: end")


async def test_awaiting_in_vain(http: httpx.AsyncClient) -> None:
    messages = sse.read(await whole(http, "never", wait_s=0.1))
    assert [(message.type, message.json) for message in messages] == [("reconnect", {"reason": "not-found"})]


async def test_types_filter_but_the_end_always_comes(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for type, data in (("log", {"message": "m"}), ("progress", {"current": 1}), ("custom", 1)):
        await publish(http, "a", type, data)
    await finish(http, "a")
    messages = sse.read(await whole(http, types="custom,log", **{"from": "start"}))
    assert [message.type for message in messages] == ["log", "custom", "end"]


async def test_an_interval_conflates_progress_and_nothing_else(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream?interval_ms=60000") as answer:
        chunks = answer.aiter_bytes()
        got = await until(chunks, b"event: snapshot")
        for i in range(20):
            await publish(http, "a", "progress", {"current": i})
        await publish(http, "a", "log", {"message": "m"})
        await finish(http, "a")
        got += await until(chunks, b"event: end")
    types = [message.type for message in sse.read(got)]
    assert types == ["snapshot", "status", "progress", "progress", "log", "end"]
    assert [message.json["data"]["current"] for message in sse.read(got) if message.type == "progress"] == [0, 19]


@pytest.mark.parametrize(("query", "ping"), [("", b"\n: ping\n"), ("?ping=event", b"event: ping\ndata: {}\n\n")])
async def test_pings(http: httpx.AsyncClient, query: str, ping: bytes) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream{query}") as answer:
        await until(answer.aiter_bytes(), ping)


async def test_a_deleted_operation_sends_its_watchers_away(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream") as answer:
        chunks = answer.aiter_bytes()
        await until(chunks, b"event: snapshot")
        await http.delete(f"{OPS}/a?force=true")
        got = await until(chunks, b'{"reason":"gone"}')
    assert b"id:" not in got


async def test_a_client_that_leaves_is_forgotten(app: Any, http: httpx.AsyncClient) -> None:
    from tests.servers import eventually

    await create(http, id="a")
    for _ in range(20):
        async with http.stream("GET", f"{OPS}/a/stream") as answer:
            await until(answer.aiter_bytes(), b"snapshot")
    await eventually(lambda: not app.state.context.hub.channels, "all are forgotten")


class TestSlowClients:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(ring_length=16)

    async def test_one_costs_bounded_memory_and_misses_nothing(
        self, app: Any, base_url: str, http: httpx.AsyncClient
    ) -> None:
        await create(http, id="a")
        host, port = base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        writer.write(b"GET /v1/operations/a/stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        await reader.readuntil(b"snapshot")
        [channel] = app.state.context.hub.channels
        [subscription] = channel.subscriptions
        events = 0
        while (
            subscription.mode.value == "live" or events < 200
        ):  # until the buffers of both kernels are full, and further
            await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": "x" * 60_000}}] * 10)
            events += 10
            assert events < 900, "it never became slow"
        assert held(subscription.outlet) <= 2 * app.state.context.settings.client_buffer_bytes
        await finish(http, "a")
        assert await count(reader) == events
        writer.close()


def held(outlet: Any) -> int:
    if isinstance(outlet, AdoptedOutlet):
        return outlet._transport.get_write_buffer_size()
    assert isinstance(outlet, AsgiOutlet)
    return outlet._size


async def count(reader: asyncio.StreamReader) -> int:
    """Read a chunked stream to its end, and return the number of its log events."""
    body = bytearray()
    async with asyncio.timeout(30):
        while not body.endswith(b"0\r\n\r\n"):
            chunk = await reader.read(1 << 20)
            assert chunk, "it was cut off"
            body += chunk
    assert b"event: end" in body
    return body.count(b"event: log")


class TestAges:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(stream_max_age_s=0.3)

    async def test_an_old_stream_is_sent_away_and_resumes(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        await publish(http, "a", "log", {"message": "m"})
        messages = sse.read(await whole(http))
        assert [message.type for message in messages] == ["snapshot", "reconnect"]
        assert messages[1].json == {"reason": "max-age"}
        assert messages[1].id == messages[0].id
        await finish(http, "a")
        assert numbers(sse.read(await whole(http, headers={"Last-Event-ID": messages[0].id}))) == [3]


class TestStuckClients:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(stuck_timeout_s=0.5, ping_s=0.2, client_buffer_bytes=4096)

    async def test_one_that_takes_nothing_is_cut_off(self, app: Any, base_url: str, http: httpx.AsyncClient) -> None:
        from tests.servers import eventually

        await create(http, id="a")
        host, port = base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        writer.write(b"GET /v1/operations/a/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"snapshot")
        hub = app.state.context.hub

        async def fill() -> bool:
            await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": "x" * 60_000}}] * 3)
            return len(hub) == 0

        await eventually(fill, "it is cut off")
        writer.close()
