"""Every rejection is told, logged and counted as what it is, also that of a request that could not be read."""

import logging
from typing import Any

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect as connect_websocket

from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.protocols.adoption import AdoptableProtocol
from progress_server.protocols.http import Bounds
from tests.api.conftest import Connect
from tests.api.raw import request
from tests.api.test_operations import OPS, create
from tests.conftest import make_settings
from tests.servers import eventually

EVENTS = "/v1/operations/{id}/events"
HEAD_S = 0.3


@pytest.fixture
def settings() -> Settings:
    return make_settings(max_body_bytes=1_000)


@pytest.fixture
def server_options() -> dict[str, Any]:
    return {"http": AdoptableProtocol.within(Bounds(1_000, 4_000, HEAD_S, 50))}


@pytest.fixture
def tally(app: Any, server: Any) -> Tally:
    found: Tally = app.state.context.hub.tally
    return found


UNREADABLE = {
    (400, "bad-request"): b"GET /livez HTTP/1.1\r\n\0\r\n\r\n",
    (408, "request-timeout"): b"GET /livez HTTP/1.1\r\nX: ",
    (414, "uri-too-long"): request("/livez?" + "x" * 2_000),
    (431, "head-too-large"): request("/livez", *(f"X-{i}: {'y' * 100}" for i in range(50))),
}


class TestUnreadable:
    @pytest.mark.parametrize(("status", "code"), UNREADABLE)
    async def test_is_rejected_as_any_other(self, connect: Connect, tally: Tally, status: int, code: str) -> None:
        client = await connect()
        client.send(UNREADABLE[status, code])
        got, headers = await client.head()
        body = orjson.loads(await client.reader.readexactly(int(headers["content-length"])))
        assert (got, body["type"], body["status"]) == (status, code, status)
        assert headers["content-type"] == "application/problem+json"
        assert {"date", "x-request-id"} <= set(headers)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["connection"] == "close"
        assert await client.rest() == b""
        assert tally.problems == {code: 1}
        assert tally.requests.counts == {("other", "other", "4xx"): 1}

    async def test_fills_no_log(self, connect: Connect, tally: Tally, caplog: pytest.LogCaptureFixture) -> None:
        offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        for sent in (UNREADABLE[400, "bad-request"], request("/livez", *offer)):
            for _ in range(3):
                client = await connect()
                client.send(sent)
                await client.head()
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class TestWebSockets:
    @pytest.mark.parametrize("path", [f"{OPS}/a/ws?interval_ms=x", f"{OPS}/a!/ws", "/v1/ws?what=this"])
    async def test_rejected_before_it_begins_is_counted_so(self, base_url: str, tally: Tally, path: str) -> None:
        async with connect_websocket(base_url.replace("http", "ws", 1) + path, proxy=None) as socket:
            assert orjson.loads(await socket.recv())["type"] == "invalid"
        assert tally.problems == {"invalid": 1}
        assert +tally.rejected == {"invalid": 1}
        assert [status for _, _, status in tally.requests.counts] == ["4xx"]

    async def test_of_an_operation_that_is_not_there_is_counted_so(self, base_url: str, tally: Tally) -> None:
        url = f"{base_url.replace('http', 'ws', 1)}{OPS}/nowhere/ws"
        async with connect_websocket(url, proxy=None) as socket:
            assert orjson.loads(await socket.recv())["event"] == "open"
            assert orjson.loads(await socket.recv())["type"] == "not-found"
        assert tally.problems == {"not-found": 1}
        assert +tally.rejected == {"not-found": 1}

    @pytest.mark.parametrize("path", ["/v1/ws", f"{OPS}/a/ws"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_are_required_where_there_is_nothing_else(
        self, http: httpx.AsyncClient, path: str, method: str
    ) -> None:
        answer = await http.request(method, path)
        assert answer.status_code == 426
        assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "Upgrade")
        if method == "GET":
            assert answer.json()["type"] == "upgrade-required"
        answer = await http.post(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


ASKED = "Expect: 100-continue"


class TestClientsThatLeave:
    """Nobody made a mistake: nothing is rejected, and nothing is invalid."""

    @pytest.fixture(autouse=True)
    def logged(self, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
        caplog.set_level(logging.DEBUG, "progress_server.middleware.access_log")
        return caplog

    @pytest.mark.parametrize(
        "sent",
        [
            request(f"{OPS}/a/events?wait=30&after=9999999999999-0"),
            request(f"{OPS}/a/events", "Content-Length: 100", ASKED, method="POST"),
            request(f"{OPS}/a/events", "Content-Type: application/x-ndjson", "Content-Length: 9", ASKED, method="POST"),
        ],
    )
    async def test_are_noted_as_such(
        self, http: httpx.AsyncClient, connect: Connect, tally: Tally, logged: Any, sent: bytes
    ) -> None:
        await create(http, id="a")
        tally.requests.counts.clear()
        logged.clear()
        client = await connect()
        client.send(sent.replace(b"&after=9999999999999-0", b"&after=" + await newest(http)))
        if b"wait" in sent:
            hub = http.hub  # type: ignore[attr-defined]
            await eventually(lambda: hub.channels, "it waits")
        else:
            assert (await client.head())[0] == 100, "it reads the body"
            client.send(b"{")
        logged.clear()
        client.reset()
        await eventually(lambda: logged.records, "it is noted")
        assert [record.status for record in logged.records] == [499]
        assert not tally.problems

    @pytest.fixture(autouse=True)
    def with_hub(self, app: Any, http: httpx.AsyncClient) -> None:
        http.hub = app.state.context.hub  # type: ignore[attr-defined]


async def newest(http: httpx.AsyncClient) -> bytes:
    position: str = (await http.get(f"{OPS}/a")).json()["position"]
    return position.encode()


class TestABodyThatNobodyAskedFor:
    async def test_is_never_taken_for_another_request(self, connect: Connect) -> None:
        client = await connect()
        client.send(request(OPS, "Content-Length: 2000", "Expect: 100-continue", method="POST"))
        status, headers = await client.head()
        await client.reader.readexactly(int(headers["content-length"]))
        assert (status, headers["connection"]) == (413, "close")
        client.send(request("/livez"))  # the client did not send its body, and goes on
        assert await client.rest() == b"", "the connection is closed: the request is not swallowed, but sent again"

    async def test_is_asked_for_where_it_is_taken(self, connect: Connect) -> None:
        client = await connect()
        client.send(request(OPS, "Content-Length: 2", "Expect: 100-continue", method="POST"))
        assert (await client.head())[0] == 100
        client.send(b"{}")
        status, headers = await client.head()
        assert (status, headers.get("connection")) == (201, None)


class TestAddresses:
    """On loopback, so that a trusted proxy's `X-Forwarded-For` counts."""

    @pytest.mark.parametrize(
        ("told", "client"),
        [
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("1.2.3.4 GET /secret 200", ""),
            ("unknown", ""),
            ("fe80::1%x y", ""),
            ("1" * 5_00, ""),
        ],
    )
    async def test_are_addresses(
        self, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, told: str, client: str
    ) -> None:
        caplog.set_level(logging.DEBUG, "progress_server.middleware.access_log")
        await http.get("/livez", headers={"X-Forwarded-For": told})
        assert [record.client for record in caplog.records if hasattr(record, "client")] == [client]


class TestLinks:
    async def test_are_absolute(self, http: httpx.AsyncClient, base_url: str) -> None:
        answer = await http.post(OPS, json={"id": "a"})
        assert answer.headers["location"] == answer.headers["operation-location"] == f"{base_url}{OPS}/a"
        assert answer.headers["retry-after"] == "2"
        assert (await http.get(answer.headers["location"])).json()["id"] == "a"

    async def test_lead_to_the_host_that_was_asked(self, http: httpx.AsyncClient) -> None:
        headers = {"Host": "localhost:81", "X-Forwarded-Proto": "https"}
        answer = await http.post(OPS, json={"id": "a"}, headers=headers)
        assert answer.headers["location"] == f"https://localhost:81{OPS}/a"

    @pytest.mark.parametrize("path", [f"{OPS}/", f"{OPS}/a/?include=children", "/docs/", "/web/client"])
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1"])
    async def test_of_redirects_name_no_host(self, http: httpx.AsyncClient, path: str, host: str) -> None:
        answer = await http.get(path, headers={"Host": host})
        assert answer.status_code == 307
        at, _, query = path.partition("?")
        other = at.removesuffix("/") if at.endswith("/") else f"{at}/"
        assert answer.headers["location"] == other + (f"?{query}" if query else "")

    @pytest.mark.parametrize("path", ["//evil.example/v1", "//evil.example//", "/nowhere/"])
    async def test_lead_nowhere_else(self, http: httpx.AsyncClient, base_url: str, path: str) -> None:
        assert (await http.get(f"{base_url}{path}")).status_code == 404


class TestUnderAPath:
    @pytest.fixture
    def server_options(self) -> dict[str, Any]:
        return {"root_path": "/progress"}

    async def test_links_have_it(self, http: httpx.AsyncClient, base_url: str) -> None:
        answer = await http.post(OPS, json={"id": "a"})
        assert answer.headers["location"] == f"{base_url}/progress{OPS}/a"


class TestWithAPublicUrl:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(public_url="https://example.com/progress/")

    async def test_links_begin_with_it(self, http: httpx.AsyncClient) -> None:
        answer = await http.post(OPS, json={"id": "a"})
        assert answer.headers["operation-location"] == f"https://example.com/progress{OPS}/a"


class TestUnchanged:
    @pytest.mark.parametrize("path", ["/", "/docs", "/web/client/watch.js", f"{OPS}/a"])
    async def test_is_not_sent_again(self, http: httpx.AsyncClient, path: str) -> None:
        await create(http, id="a")
        answer = await http.get(path)
        tag = answer.headers["etag"]
        for told in ([tag], [f"W/{tag}"], ["*"], ['"x", "y"', f'"z", {tag}'], ['"a,b"', tag]):
            again = await http.get(path, headers=[("If-None-Match", line) for line in told])
            assert (again.status_code, again.content) == (304, b""), told
            assert again.headers["etag"] == tag
        for told in (['"x"'], ["x", "y"]):
            assert (await http.get(path, headers=[("If-None-Match", line) for line in told])).status_code == 200
