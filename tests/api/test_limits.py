"""Limits as callers see them: rejections with a retry delay, and headers that report the remaining quota."""

import asyncio
import math
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import websockets
from starlette.types import Scope

from progress_broker.limits.limiter import Limiter
from progress_broker.limits.policy import BURST_S
from progress_broker.operations.store import Store
from progress_broker.settings import Settings, load_settings
from progress_server.app import create_app
from progress_server.http.paths import classify
from progress_server.limits.slots import address_of
from tests import sse
from tests.api.named import name_callers
from tests.api.raw import STREAM, Client, request
from tests.api.test_metrics import scrape
from tests.api.test_operations import OPS, create, finish, problem
from tests.api.test_stream import until
from tests.conftest import make_settings
from tests.servers import eventually

EVENT_SOURCE = {"Accept": "text/event-stream"}
ANN, BOB = {"X-Principal": "ann"}, {"X-Principal": "bob"}


@pytest.fixture
async def app(store: Store) -> Any:
    return name_callers(create_app(store.settings, store))


@pytest.fixture
def limiter(app: Any) -> Limiter:
    [found] = [it.kwargs["limiter"] for it in app.user_middleware if "limiter" in it.kwargs]
    assert isinstance(found, Limiter)
    return found


def quota(answer: httpx.Response, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the policy and the state of a quota, by the parameter names of the draft."""
    found = []
    for header in ("ratelimit-policy", "ratelimit"):
        [item] = [it.strip() for it in answer.headers[header].split(",") if it.strip().startswith(f'"{name}"')]
        found.append(dict(part.split("=", 1) for part in item.split(";")[1:]))
    return found[0], found[1]


class TestRequests:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(requests_per_s=5)

    async def test_are_counted_down_in_headers_and_rejected_in_the_end(self, http: httpx.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answers = [await http.get(OPS, headers=ANN)]
        took_s = loop.time() - begun
        answers += [await http.get(OPS, headers=ANN) for _ in range(9)]
        while answers[-1].status_code == 200:  # because it refills meanwhile
            answers.append(await http.get(OPS, headers=ANN))
        assert [answer.status_code for answer in answers[:10]] == [200] * 10
        policy, first = quota(answers[0], "requests")
        assert policy == {"q": "10", "w": str(math.ceil(BURST_S))}
        assert 9 <= int(first["r"]) <= 9 + 5 * took_s
        assert first["t"] == ("1" if first["r"] == "9" else "0")
        last = answers[-1]
        problem(last, 429, "rate-limited")
        assert quota(last, "requests")[1]["r"] == "0"
        assert 1 <= int(last.headers["retry-after"]) <= 3

    async def test_of_others_are_let_in(self, http: httpx.AsyncClient) -> None:
        while (await http.get(OPS, headers=ANN)).status_code == 200:
            pass
        assert (await http.get(OPS, headers=BOB)).status_code == 200
        assert (await http.get(OPS)).status_code == 200, "the address has a bucket of its own"
        assert (await http.get("/livez", headers=ANN)).status_code == 200
        assert (await http.get("/readyz", headers=ANN)).status_code == 200
        assert "ratelimit" not in (await http.get("/livez")).headers

    async def test_without_a_name_count_for_the_address(self, http: httpx.AsyncClient) -> None:
        while (await http.get(OPS)).status_code == 200:
            pass
        assert (await http.get(OPS, headers=ANN)).status_code == 200

    async def test_who_comes_back_when_told_is_let_in(self, http: httpx.AsyncClient) -> None:
        while (answer := await http.get(OPS, headers=ANN)).status_code == 200:
            pass
        await asyncio.sleep(int(answer.headers["retry-after"]))
        assert (await http.get(OPS, headers=ANN)).status_code == 200

    async def test_an_event_source_is_told_to_come_back(self, http: httpx.AsyncClient, limiter: Limiter) -> None:
        await create(http, id="a")
        assert limiter.requests is not None
        limiter.requests.charge("=ann", 10_000, limiter.clock())  # more than refills while a busy machine gets there
        assert (await http.get(OPS, headers=ANN)).status_code == 429
        answer = await http.get(f"{OPS}/a/stream", headers=ANN | EVENT_SOURCE)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        [message] = sse.read(answer.content)
        assert (message.type, message.json) == ("reconnect", {"reason": "rate-limited"})
        told = await scrape(http)
        assert told("limits_exceeded_total", limit="requests") >= 2
        assert told("streams_rejected_total", reason="rate-limited") == 1

    async def test_what_is_asked_over_a_websocket_waits_for_its_time_and_counts(
        self, http: httpx.AsyncClient, base_url: str
    ) -> None:
        url, loop = f"{base_url.replace('http', 'ws')}/v1/ws", asyncio.get_running_loop()
        async with websockets.connect(url, additional_headers=ANN) as socket:
            begun = loop.time()
            for number in range(15):
                await socket.send(orjson.dumps({"type": "cancel", "operation": "nope", "ref": number}).decode())
            told = [orjson.loads(await socket.recv()) for _ in range(16)]
            assert [it.get("ref") for it in told] == [None, *range(15)], "none is rejected"
            heard = loop.time()
            assert heard - begun >= 0.9, "of ten at once, and five a second"
            let_in = 0
            while (answer := await http.get(OPS, headers=ANN)).status_code == 200:  # of what has arrived meanwhile
                let_in += 1
            problem(answer, 429, "rate-limited")
            assert let_in <= 5 * (loop.time() - heard) + 1
            assert (await http.get(OPS, headers=BOB)).status_code == 200

    @pytest.mark.parametrize("outlet", ["adopted", "asgi"])
    async def test_a_stream_tells_the_quota_too(self, http: httpx.AsyncClient, outlet: str) -> None:
        await create(http, id="a")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with http.stream("GET", f"{OPS}/a/stream", headers=ANN) as answer:
            assert 9 <= int(quota(answer, "requests")[1]["r"]) <= 9 + 5 * (loop.time() - begun)
            await until(answer.aiter_bytes(), b"snapshot")


class TestBytes:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(sent_bytes_per_s=20_000, max_body_bytes=10_000)

    async def test_are_charged_and_rejected_once_there_are_none(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        event = {"type": "log", "data": {"message": "x" * 9_000}}
        loop = asyncio.get_running_loop()
        begun = loop.time()
        first = await http.post(f"{OPS}/a/events", json=event, headers=ANN)
        policy, now = quota(first, "sent-bytes")
        assert policy == {"q": "40000", "w": "2", "qu": '"content-bytes"'}
        assert 30_000 <= int(now["r"]) <= 31_000 + 20_000 * (loop.time() - begun)
        taken = 9_000
        while (answer := await http.post(f"{OPS}/a/events", json=event, headers=ANN)).status_code == 200:
            taken += 9_000
        assert 30_000 < taken <= 40_000 + 20_000 * (loop.time() - begun) + 9_000
        problem(answer, 429, "rate-limited")
        assert (await http.get(f"{OPS}/a", headers=ANN)).status_code == 200, "who sends nothing is let in"
        assert (await http.post(f"{OPS}/a/events", json=event, headers=BOB)).status_code == 200
        assert (await scrape(http))("limits_exceeded_total", limit="sent-bytes") == 1

    async def test_of_bodies_that_begin_together_are_counted_together(
        self, http: httpx.AsyncClient, base_url: str
    ) -> None:
        await create(http, id="a")
        body = b'{"type": "log", "data": {"message": "x"}}'.ljust(9_000)
        length = f"Content-Length: {len(body)}"
        clients, loop = [await Client.connect(base_url) for _ in range(12)], asyncio.get_running_loop()
        begun = loop.time()
        for client in clients:
            client.send(request(f"{OPS}/a/events", "X-Principal: ann", length, method="POST"))
            assert (await http.get("/livez")).status_code == 200
        for client in clients:
            client.send(body)
        answers = [await client.answer() for client in clients]
        taken = sum(len(body) for status, _ in answers if status == 200)
        assert taken <= 40_000 + 20_000 * (loop.time() - begun) + len(body)
        for client in clients:
            client.close()


class TestLines:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(sent_bytes_per_s=200_000, max_body_bytes=10_000)

    async def test_are_taken_no_faster_than_they_may_come(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        line = b'{"type": "log", "data": {"message": "%s"}}\n' % (b"x" * 8_950)

        async def lines() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield line

        loop = asyncio.get_running_loop()
        begun = loop.time()
        headers = ANN | {"Content-Type": "application/x-ndjson"}
        answer = await http.post(f"{OPS}/a/events", content=lines(), headers=headers)
        assert answer.json()["accepted"] == 100, "and none is rejected"
        at_once = 400_000 + 200_000  # a burst, and the last piece, after which nobody waits
        assert loop.time() - begun >= (100 * len(line) - at_once) / 200_000


class TestManyConnections:
    """The bytes that all of them together may send."""

    RATE, BURST, CONNECTIONS = 20_000, 40_000, 60

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(sent_bytes_per_s=self.RATE, max_body_bytes=10_000)

    def most(self, elapsed_s: float) -> float:
        """Return the maximum bytes that may have been accepted, including one piece over the rate, here a burst."""
        return self.BURST + self.RATE * elapsed_s + self.BURST

    async def test_with_lines_that_have_no_end_get_no_more_than_one(
        self, http: httpx.AsyncClient, base_url: str, app: Any
    ) -> None:
        await create(http, id="a")
        line = b'{"type": "log", "data": {"message": "%s"}}\n' % (b"x" * 940)
        chunk = b"%x\r\n%b\r\n" % (60 * len(line), line * 60)
        published, loop = app.state.context.hub.tally.published_bytes, asyncio.get_running_loop()
        kind = ("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
        clients = [await Client.connect(base_url) for _ in range(self.CONNECTIONS)]
        begun = loop.time()
        for client in clients:
            client.send(request(f"{OPS}/a/events", "X-Principal: ann", *kind, method="POST") + chunk)
        await eventually(lambda: published["stored"] > self.BURST + 2 * self.RATE, "they go on")
        assert published["stored"] <= self.most(loop.time() - begun)
        assert (await http.post(f"{OPS}/a/events", json={"type": "log"}, headers=ANN)).status_code == 429
        assert (await http.post(f"{OPS}/a/events", json=[], headers=BOB)).status_code == 200, "others are let in"
        for client in clients:
            client.reset()

    async def test_with_bodies_of_no_told_length_are_rejected_in_the_end(
        self, http: httpx.AsyncClient, base_url: str
    ) -> None:
        await create(http, id="a")
        body = b'{"type": "log", "data": {"message": "x"}}'.ljust(9_000)
        head = request(f"{OPS}/a/events", "X-Principal: ann", "Transfer-Encoding: chunked", method="POST")
        loop = asyncio.get_running_loop()
        clients = [await Client.connect(base_url) for _ in range(self.CONNECTIONS)]
        begun = loop.time()
        for client in clients:
            client.send(head)
        await asyncio.gather(*(client.writer.drain() for client in clients))
        for client in clients:
            client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        answers = [await client.answer() for client in clients]
        taken = sum(len(body) for status, _ in answers if status == 200)
        assert self.BURST - len(body) < taken <= self.most(loop.time() - begun)
        assert {status for status, _ in answers} == {200, 429}
        rejected = [orjson.loads(told) for status, told in answers if status == 429]
        assert {it["type"] for it in rejected} == {"rate-limited"}
        for client in clients:
            client.close()


class TestStreams:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(max_streams_per_principal=2)

    @pytest.fixture(params=["adopted", "asgi"])
    def outlet(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    async def test_of_a_principal_are_so_many_until_one_ends(
        self, http: httpx.AsyncClient, base_url: str, limiter: Limiter
    ) -> None:
        await create(http, id="a")
        clients = [await Client.connect(base_url) for _ in range(2)]
        for client in clients:
            client.send(request(STREAM, "X-Principal: ann"))
            await client.opened()
        rejected = await http.get(f"{OPS}/a/stream", headers=ANN)
        problem(rejected, 429, "too-many-streams")
        assert quota(rejected, "streams") == ({"q": "2", "qu": '"concurrent-requests"'}, {"r": "0"})
        assert 5 <= int(rejected.headers["retry-after"]) <= 15
        answer = await http.get(f"{OPS}/a/stream", headers=ANN | EVENT_SOURCE)
        assert answer.status_code == 200
        [message] = sse.read(answer.content)
        assert (message.type, message.json) == ("reconnect", {"reason": "too-many-streams"})
        assert 5_000 <= int(answer.content.split(b"\n")[0].removeprefix(b"retry: ")) <= 15_000
        async with http.stream("GET", f"{OPS}/a/stream", headers=BOB) as others:
            assert others.status_code == 200
        clients.pop().close()
        await eventually(lambda: len(limiter.slots) == 1, "its place is free")
        clients.append(await Client.connect(base_url))
        clients[-1].send(request(STREAM, "X-Principal: ann"))
        await clients[-1].opened()
        await finish(http, "a")
        for client in clients:
            await client.rest()
            client.close()
        await eventually(lambda: len(limiter.slots) == 0, "all places are free")

    async def test_that_are_not_opened_hold_no_place(self, http: httpx.AsyncClient, limiter: Limiter) -> None:
        for _ in range(5):
            assert (await http.get(f"{OPS}/nope/stream", headers=ANN)).status_code == 404
            assert (await http.get(f"{OPS}/nope/stream?last_event_id=x", headers=ANN)).status_code == 422
        assert len(limiter.slots) == 0

    async def test_long_polls_count_as_well(self, http: httpx.AsyncClient, limiter: Limiter) -> None:
        position = (await create(http, id="a"))["position"]
        query = {"after": position, "wait": "20"}
        polls = [asyncio.create_task(http.get(f"{OPS}/a/events", params=query, headers=ANN)) for _ in range(2)]
        await eventually(lambda: len(limiter.slots) == 2, "they wait")
        problem(await http.get(f"{OPS}/a/events", params=query, headers=ANN), 429, "too-many-streams")
        assert (await http.get(f"{OPS}/a/events", headers=ANN)).status_code == 200, "who does not wait is let in"
        await finish(http, "a")
        assert [(await poll).status_code for poll in polls] == [200, 200]
        assert len(limiter.slots) == 0

    async def test_a_long_poll_whose_client_has_left_holds_no_place(
        self, http: httpx.AsyncClient, base_url: str, limiter: Limiter
    ) -> None:
        position = (await create(http, id="a"))["position"]
        for _ in range(4):
            client = await Client.connect(base_url)
            client.send(request(f"{OPS}/a/events?after={position}&wait=20", "X-Principal: ann"))
            await eventually(lambda: len(limiter.slots) == 1, "it waits")
            client.close()
            await eventually(lambda: len(limiter.slots) == 0, "its place is free")


class TestAddresses:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(max_streams_per_address=1)

    async def test_have_so_many_streams_each(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        first, second = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
        async with http.stream("GET", f"{OPS}/a/stream", headers=first) as answer:
            assert answer.status_code == 200
            problem(await http.get(f"{OPS}/a/stream", headers=first), 429, "too-many-streams")
            async with http.stream("GET", f"{OPS}/a/stream", headers=second) as other:
                assert other.status_code == 200
        assert (await scrape(http))("limits_exceeded_total", limit="address") == 1


class TestAReplica:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(max_streams=1)

    async def test_has_room_for_so_many_streams(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        async with http.stream("GET", f"{OPS}/a/stream"):
            rejected = await http.get(f"{OPS}/a/stream")
            problem(rejected, 503, "at-capacity")
            assert int(rejected.headers["retry-after"]) >= 5
            assert (await http.get(f"{OPS}/a")).status_code == 200
        assert (await scrape(http))("limits_exceeded_total", limit="replica") == 1

    async def test_tells_a_websocket_to_come_back(self, http: httpx.AsyncClient, base_url: str) -> None:
        await create(http, id="a")
        url = f"{base_url.replace('http', 'ws')}/v1/ws"
        async with http.stream("GET", f"{OPS}/a/stream"), websockets.connect(url) as socket:
            told = orjson.loads(await socket.recv())
            await socket.wait_closed()
        assert (told["event"], told["type"], told["status"]) == ("problem", "at-capacity", 503)
        assert told["retry_ms"] >= 5_000
        assert socket.close_code == 1013


async def test_by_default_nothing_is_said_of_limits(http: httpx.AsyncClient) -> None:
    created = await http.post(OPS, json={"id": "a"})
    assert not [name for name in created.headers if name.startswith("ratelimit")]


def scope(**changes: Any) -> Scope:
    return {"type": "http", "method": "GET", "path": "/v1/stream", "query_string": b"", **changes}


@pytest.mark.parametrize(
    ("path", "opens"),
    [
        ("/v1/operations/a/stream", True),
        ("/v1/operations/a/ws", True),
        ("/v1/stream", True),
        ("/v1/ws", True),
        ("/v1/operations/a/stream\n", True),
        ("/v1/stream\n", True),
        ("/v1/operations/stream", False),
        ("/v1/operations/a/events", False),
        ("/v1/operations/a/b/stream", False),
        ("/stream", False),
    ],
)
def test_what_opens_a_stream(path: str, opens: bool) -> None:
    assert classify(scope(path=path)).streams is opens
    assert classify(scope(path=path, type="websocket")).streams is opens
    assert classify(scope(path=f"/under{path}", root_path="/under")).streams is opens
    assert not classify(scope(path=path, method="POST")).streams


def test_what_waits() -> None:
    assert classify(scope(path="/v1/operations/a/events", query_string=b"after=1-0&wait=3")).is_long_poll
    assert classify(scope(path="/v1/operations/a/events", query_string=b"w%61it=3")).is_long_poll
    assert classify(scope(path="/v1/operations/a/events", query_string=b"wait=3", method="HEAD")).is_long_poll
    assert not classify(scope(path="/v1/operations/a/events")).is_long_poll
    assert not classify(scope(path="/v1/operations/a", query_string=b"wait=3")).is_long_poll


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("::ffff:192.0.2.7", 5), "192.0.2.7"),
        (("2001:db8:1:2:aaaa::1", 5), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:bbbb::2", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("unknown", 0), "unknown"),
        (("x" * 500, 0), "x" * 64),
        (None, ""),
    ],
)
def test_an_address_as_it_is_counted(client: tuple[str, int] | None, counted: str) -> None:
    assert address_of({"type": "http", "client": client}) == counted


def test_proxies_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_settings().trusted_proxies == ("127.0.0.1", "::1")
    monkeypatch.setenv("PROGRESS_TRUSTED_PROXIES", "10.0.0.7, 2001:db8::/32")
    assert load_settings().trusted_proxies == ("10.0.0.7", "2001:db8::/32")
    for nonsense in ("*", "nginx", "10.0.0.7/8"):
        monkeypatch.setenv("PROGRESS_TRUSTED_PROXIES", nonsense)
        with pytest.raises(Exception, match=re.escape(nonsense)):
            load_settings()
