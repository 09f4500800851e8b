"""Streams as seen from the socket. Behaviour of any server is tested with both outlets and both event loops."""

import asyncio
import gc
import logging
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from progress_broker.errors import SetupError
from progress_broker.settings import Settings, load_settings
from progress_broker.stream.subscription import Subscription
from progress_server.protocols.adoption import AdoptableProtocol
from progress_server.server.sockets import check_certificate
from progress_server.sse.adopted import MAX_UNASKED_BYTES, AdoptedOutlet, Http10Outlet
from progress_server.sse.asgi import AsgiOutlet
from tests import sse
from tests.api.conftest import Connect, InLoopServer
from tests.api.raw import STREAM, Client, request
from tests.api.test_operations import OPS, create, finish, publish
from tests.conftest import make_settings
from tests.servers import DEADLINE_S, ApiReplica, RealRedis, eventually, need, wait_until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

both_outlets = pytest.mark.parametrize("outlet", ["adopted", "asgi"])


@pytest.fixture
async def hub(app: Any, http: httpx.AsyncClient) -> Any:
    """The hub of a server that has an operation "a"."""
    await create(http, id="a")
    return app.state.context.hub


async def the_one(hub: Any) -> Subscription:
    await eventually(lambda: len(hub) == 1, "there is one subscription")
    [channel] = hub.channels
    [subscription] = channel.subscriptions
    return subscription


async def listening(connect: Connect, **options: Any) -> Client:
    """Return a client whose stream is open."""
    client = await connect(**options)
    client.send(request())
    await client.opened()
    return client


async def ends(client: Client, http: httpx.AsyncClient) -> None:
    """Finish the operation. Its stream ends properly and is closed."""
    await finish(http, "a")
    assert b"event: end" in await client.body()
    assert await client.rest() == b""


class TestItsEnd:
    @both_outlets
    async def test_is_told_by_the_last_chunk_and_a_close(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        client = await connect()
        client.send(request(STREAM, "Connection: close"))
        headers = await client.opened()
        assert headers["transfer-encoding"] == "chunked"
        assert headers["connection"] == "close"
        await ends(client, http)

    async def test_closes_what_was_adopted_though_the_client_would_keep_it(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        client = await connect()
        client.send(request(STREAM, "Connection: keep-alive"))
        assert (await client.opened())["connection"] == "close"
        assert isinstance((await the_one(hub)).outlet, AdoptedOutlet)
        await ends(client, http)

    @both_outlets
    async def test_a_client_that_leaves_is_forgotten(self, hub: Any, server: InLoopServer, connect: Connect) -> None:
        others = len(server.server_state.connections)
        for leave in (Client.close, Client.reset, Client.half_close):
            client = await listening(connect)
            leave(client)
            await eventually(lambda: not hub.channels, f"its subscription is forgotten: {leave}")
            await eventually(lambda: len(server.server_state.connections) <= others, "so is its connection")

    @both_outlets
    async def test_half_closed_with_its_request_a_client_gets_no_more_than_what_was_there(
        self, hub: Any, server: InLoopServer, connect: Connect
    ) -> None:
        client = await connect()
        client.send(request())
        client.half_close()
        assert b"event: end" not in await client.rest()
        await eventually(lambda: not hub.channels, "it is forgotten")


def census() -> Counter[str]:
    """Count the objects of a connection. A scope is a dict with a path; running requests have one."""
    kinds = (AdoptedOutlet, Subscription, AdoptableProtocol, RequestResponseCycle)
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        if type(thing) is dict:
            found["scope"] += "raw_path" in thing
        elif isinstance(thing, kinds):
            found[type(thing).__name__] += 1
    return +found


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the garbage collector: objects are freed only when nothing refers to them."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
class TestWhatIsKept:
    async def test_of_an_open_stream_is_an_outlet_and_a_subscription(self, hub: Any, connect: Connect) -> None:
        before = census()
        for _ in range(3):
            client = await connect()
            client.send(request() + request("/livez"))
            await client.opened()
        await eventually(lambda: len(hub) == 3, "there are three")
        assert census() - before == {"ChunkedOutlet": 3, "Subscription": 3}

    async def test_of_a_packed_stream_is_no_more_than_that(self, hub: Any, connect: Connect) -> None:
        before = census()
        client = await connect()
        client.send(request(STREAM, "Accept-Encoding: gzip"))
        await client.head()
        await client.chunk()
        assert census() - before == {"GzipOutlet": 1, "Subscription": 1}
        client.close()
        await eventually(lambda: census() <= before, f"all is gone: {census() - before} is left")

    async def test_of_a_stream_that_is_over_is_nothing(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        async def end(client: Client) -> None:
            await finish(http, "a")
            await client.body()

        async def flood(client: Client) -> None:
            client.send(b"x" * MAX_UNASKED_BYTES * 2)

        before = census()
        for over in (Client.close, Client.reset, Client.half_close, flood, end):
            client = await connect()
            client.send(request("/livez") + request() + request("/livez"))
            await client.answer()
            await client.opened()
            if (more := over(client)) is not None:
                await more
            await eventually(lambda: not hub.channels, "its subscription is forgotten")
            await eventually(lambda: census() <= before, f"all is gone after {over}: {census() - before}")

    async def test_of_other_requests_is_nothing(self, hub: Any, connect: Connect) -> None:
        before = census()
        client = await connect()
        for path, status in (("/livez", 200), (f"{OPS}/a", 200), (f"{OPS}/b/stream", 404), (f"{OPS}/b", 404)):
            client.send(request(path))
            assert (await client.answer())[0] == status
        client.close()
        await eventually(lambda: census() <= before, f"all is gone: {census() - before} is left")


class TestWhatElseAClientSends:
    @both_outlets
    async def test_requests_before_it_are_answered(self, hub: Any, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez") + request(f"{OPS}/a") + request())
        assert (await client.answer())[0] == 200
        assert b'"id":"a"' in (await client.answer())[1]
        await client.opened()

    @both_outlets
    async def test_it_may_be_the_second_request_of_a_connection(self, hub: Any, connect: Connect) -> None:
        client = await connect()
        for _ in range(2):
            client.send(request("/livez"))
            assert (await client.answer())[0] == 200
        client.send(request())
        await client.opened()

    async def test_requests_behind_it_are_not_answered(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        client = await connect()
        client.send(request() + request("/livez"))
        await client.opened()
        client.send(request("/livez"))
        await ends(client, http)

    async def test_garbage_is_ignored_and_a_flood_of_it_ends_the_stream(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        client = await listening(connect)
        client.send(b"\0\xff garbage \r\n\r\n" * 100)
        await publish(http, "a", "log", {"message": "still here"})
        await client.chunk_with(b"still here")
        client.send(b"x" * MAX_UNASKED_BYTES)
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        await eventually(lambda: not hub.channels, "it is forgotten")

    @both_outlets
    async def test_garbage_with_the_request_is_a_bad_request(
        self, hub: Any, server: InLoopServer, connect: Connect
    ) -> None:
        client = await connect()
        client.send(request() + b"\0garbage\r\n\r\n")
        assert b" 400 " in await client.rest()
        await eventually(lambda: not hub.channels, "it is forgotten")

    @both_outlets
    async def test_a_body_is_of_no_interest(self, hub: Any, http: httpx.AsyncClient, connect: Connect) -> None:
        for lines, body, later in (
            (["Content-Length: 5"], b"hello", b""),
            (["Content-Length: 5"], b"hel", b"lo"),
            (["Content-Length: 5", "Expect: 100-continue"], b"", b"hello"),
            (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n", b""),
            (["Transfer-Encoding: chunked"], b"5\r\nhe", b"llo\r\n0\r\n\r\n"),
        ):
            client = await connect()
            client.send(request(STREAM, *lines) + body)
            await client.opened()
            await publish(http, "a", "log", {"message": "one"})
            await client.chunk_with(b"one")
            client.send(later)
            await publish(http, "a", "log", {"message": "two"})
            await client.chunk_with(b"two")


class TestOtherAnswers:
    @pytest.mark.parametrize("lines", [(), ("Connection: keep-alive",)])
    async def test_an_http_1_0_client_is_sent_no_chunks(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect, lines: tuple[str, ...]
    ) -> None:
        client = await connect()
        client.send(request(STREAM, *lines, version="1.0"))
        status, headers = await client.head()
        assert (status, headers["connection"]) == (200, "close")
        assert not {"transfer-encoding", "content-length"} & set(headers)
        assert isinstance((await the_one(hub)).outlet, Http10Outlet)
        await finish(http, "a")
        body = await client.rest()
        assert body.startswith(b"retry: ")
        assert body.endswith(b"\n\n")
        assert [message.type for message in sse.read(body)] == ["snapshot", "end"]

    async def test_other_answers_to_http_1_0_are_as_ever(self, hub: Any, connect: Connect) -> None:
        client = await connect()
        client.send(request(f"{OPS}/a", version="1.0"))
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""

    @both_outlets
    async def test_heads_no_content_and_problems_keep_the_connection(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        await finish(http, "a")
        end = (await http.get(f"{OPS}/a")).json()["position"]
        client = await connect()
        client.send(request(method="HEAD"))
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        client.send(request(STREAM, f"Last-Event-ID: {end}"))
        assert await client.answer() == (204, b"")
        for path, rejected in ((f"{OPS}/b/stream", 404), (f"{STREAM}?from=end", 422)):
            client.send(request(path))
            assert (await client.answer())[0] == rejected
        client.send(request("/livez"))
        assert (await client.answer())[0] == 200
        assert not hub.channels


class TestWhatUvicornCounts:
    class TestConcurrency:
        @pytest.fixture
        def server_options(self) -> dict[str, Any]:
            return {"limit_concurrency": 4}

        async def test_adopted_connections_are_among_those_it_limits(self, hub: Any, connect: Connect) -> None:
            for _ in range(2):  # in addition there is the connection of `http`
                client = await listening(connect)
            last = await connect()
            last.send(request("/livez"))
            assert (await last.answer())[0] == 503
            client.close()
            await eventually(lambda: len(hub) == 1, "it is forgotten")
            again = await connect()
            again.send(request("/livez"))
            assert (await again.answer())[0] in (200, 503)

    class TestRequests:
        @pytest.fixture
        def server_options(self) -> dict[str, Any]:
            return {"limit_max_requests": 4}

        async def test_a_server_that_has_had_its_share_stops_and_says_so(
            self, hub: Any, server: InLoopServer, connect: Connect
        ) -> None:
            clients = [await connect() for _ in range(3)]
            for client in clients:  # with the operation's creation, there are four events
                client.send(request())
                await client.opened()
            for client in clients:
                assert b'{"reason":"draining"}' in await client.body()
                assert await client.rest() == b""

    class TestTheAccessLog:
        @pytest.fixture
        def server_options(self) -> dict[str, Any]:
            return {"log_config": None, "log_level": "info"}

        @both_outlets
        async def test_has_one_line_for_a_stream(
            self, hub: Any, http: httpx.AsyncClient, connect: Connect, caplog: pytest.LogCaptureFixture
        ) -> None:
            caplog.set_level(logging.INFO, "uvicorn.access")
            client = await listening(connect)
            await finish(http, "a")
            await client.body()
            lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
            [line] = [line for line in lines if STREAM in line]
            assert line.endswith(f'"GET {STREAM} HTTP/1.1" 200')


class Late:
    """Middleware that holds the head back until it has seen the first part of the body."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        held: list[Any] = []

        async def send_late(message: Any) -> None:
            held.append(message)
            if message["type"] != "http.response.start":
                for each in held:
                    await send(each)
                held.clear()

        await self.app(scope, receive, send_late)


class Unextended:
    """Middleware that passes on only known message types."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({name: value for name, value in scope.items() if name != "extensions"}, receive, send)


async def pass_on(request: Any, call_next: Any) -> Any:
    return await call_next(request)


class TestMiddleware:
    @pytest.fixture
    def middleware(self) -> tuple[Any, dict[str, Any]]:
        return CORSMiddleware, {"allow_origins": ["https://example.org"]}

    @pytest.fixture
    async def app(self, app: Any, middleware: tuple[Any, dict[str, Any]]) -> Any:
        app.add_middleware(middleware[0], **middleware[1])
        return app

    async def test_that_adds_a_header_sees_the_head_of_an_adopted_stream(self, hub: Any, connect: Connect) -> None:
        client = await connect()
        client.send(request(STREAM, "Origin: https://example.org"))
        assert (await client.opened())["access-control-allow-origin"] == "https://example.org"
        assert isinstance((await the_one(hub)).outlet, AdoptedOutlet)

    @pytest.mark.parametrize(
        "middleware",
        [(Unextended, {}), (Late, {}), (BaseHTTPMiddleware, {"dispatch": pass_on})],
        ids=["knows no extensions", "holds the head until the body", "runs the application beside itself"],
    )
    async def test_that_stands_between_leaves_the_stream_to_asgi(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        client = await connect()
        client.send(request(STREAM, "Accept-Encoding: identity"))
        headers = await client.opened()
        assert (headers["content-type"], headers["transfer-encoding"]) == ("text/event-stream", "chunked")
        assert isinstance((await the_one(hub)).outlet, AsgiOutlet)
        await publish(http, "a", "log", {"message": "at once"})
        await client.chunk_with(b"at once")
        await finish(http, "a")
        assert b"event: end" in await client.body()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate, and its key."""
    import subprocess

    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    make = [need("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(
        [*make, "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key


class OverTls:
    @pytest.fixture
    def server_options(self, certificate: tuple[Path, Path]) -> dict[str, Any]:
        cert, key = certificate
        return {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}


async def fill(http: httpx.AsyncClient, subscription: Subscription) -> int:
    """Publish until the buffers of both kernels are full, and further. Return the number of events."""
    events = 0
    while subscription.mode.value == "live" or events < 100:
        await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": "x" * 60_000}}] * 10)
        events += 10
        assert events < 900, "it never became slow"
    return events


class TestSlowClients:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(ring_length=16)

    @both_outlets
    async def test_one_falls_back_and_catches_up(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect, outlet: str
    ) -> None:
        client = await listening(connect, receive_buffer=4096)
        subscription = await the_one(hub)
        events = await fill(http, subscription)
        if outlet == "adopted":
            assert subscription.outlet._transport.get_write_buffer_size() <= 2 * 65_536
        await finish(http, "a")
        body = await client.body()
        assert (body.count(b"event: log"), body.count(b"event: end")) == (events, 1)

    async def test_what_comes_at_once_leaves_in_one_chunk(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        client = await listening(connect)
        await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": str(i)}} for i in range(10)])
        assert (await client.chunk()).count(b"event: log") == 10


class TestSlowClientsOverTls(OverTls, TestSlowClients):
    pass


class TestStuckClients:
    """Clients that read nothing."""

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(client_buffer_bytes=4096, history_length=1000)

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(AdoptedOutlet, "linger_s", 0.1)

    async def test_one_is_cut_off_soon_after_its_stream_has_ended(
        self, hub: Any, http: httpx.AsyncClient, server: InLoopServer, connect: Connect
    ) -> None:
        await listening(connect, receive_buffer=4096)
        others = len(server.server_state.connections) - 1
        await fill(http, await the_one(hub))
        hub.drain()
        await eventually(lambda: len(server.server_state.connections) == others, "it is cut off")

    async def test_one_that_closes_its_half_is_cut_off_too(
        self, hub: Any, http: httpx.AsyncClient, server: InLoopServer, connect: Connect
    ) -> None:
        client = await listening(connect, receive_buffer=4096)
        subscription = await the_one(hub)
        others = len(server.server_state.connections) - 1
        await fill(http, subscription)
        if client.writer.can_write_eof():  # TLS can't do that
            client.half_close()
            await eventually(subscription.outlet._transport.is_closing, "the server has heard of it")
        hub.drain()
        await eventually(lambda: len(server.server_state.connections) == others, "it is cut off")

    async def test_one_that_does_not_close_in_turn_is_cut_off_too(
        self, hub: Any, server: InLoopServer, connect: Connect
    ) -> None:
        client = await listening(connect)
        client.writer.transport.pause_reading()
        others = len(server.server_state.connections) - 1
        hub.drain()
        await eventually(lambda: len(server.server_state.connections) == others, "it is cut off")

    async def test_one_is_not_adopted_before_it_has_taken_what_it_was_sent_earlier(
        self, hub: Any, http: httpx.AsyncClient, server: InLoopServer, connect: Connect
    ) -> None:
        """Its transport would buffer more than the limit, and never report that it is full."""
        others = set(server.server_state.connections)
        client = await connect(receive_buffer=4096)
        await eventually(lambda: set(server.server_state.connections) - others, "it is connected")
        [protocol] = set(server.server_state.connections) - others
        earlier = 0
        while protocol.transport.get_write_buffer_size() < 10_000:
            protocol.transport.write(b"x" * 20_000)
            earlier += 20_000
            await asyncio.sleep(0)
        assert not protocol.flow.write_paused
        client.send(request())
        subscription = await the_one(hub)
        for _ in range(10):
            await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": "y" * 60_000}}] * 10)
        assert protocol.transport.get_write_buffer_size() < 65_536
        await client.reader.readexactly(earlier)
        await client.opened()
        assert isinstance(subscription.outlet, AdoptedOutlet)


class TestStuckClientsOverTls(OverTls, TestStuckClients):
    pass


class TestTls(OverTls):
    @both_outlets
    async def test_a_stream_from_its_snapshot_to_its_end(
        self, hub: Any, http: httpx.AsyncClient, connect: Connect
    ) -> None:
        client = await listening(connect)
        for i in range(5):
            await publish(http, "a", "log", {"message": f"line {i}"})
            await client.chunk_with(b"line %d" % i)
        await finish(http, "a")
        assert b"event: end" in await client.body()

    @both_outlets
    async def test_a_client_that_leaves_is_forgotten(self, hub: Any, server: InLoopServer, connect: Connect) -> None:
        others = len(server.server_state.connections)
        for leave in (Client.close, Client.reset):
            client = await listening(connect)
            leave(client)
            await eventually(lambda: not hub.channels, f"its subscription is forgotten: {leave}")
            await eventually(lambda: len(server.server_state.connections) <= others, "so is its connection")


@pytest.mark.asyncio(loop_factories=["asyncio"])  # it has a loop of its own, which is uvloop's
class TestServedOverTls:
    async def test_by_its_settings(
        self, redis_server: RealRedis, tmp_path: Path, certificate: tuple[Path, Path]
    ) -> None:
        cert, key = certificate
        with ApiReplica(redis_server.url, tmp_path / "log", tls_cert=cert, tls_key=key) as replica:
            assert f"serving on https://127.0.0.1:{replica.port}" in replica.output()
            async with httpx.AsyncClient(base_url=replica.url, verify=False, timeout=DEADLINE_S) as http:
                (await http.post(OPS, json={"id": "tls"})).raise_for_status()
                client = await Client.connect(replica.url)
                client.send(request(f"{OPS}/tls/stream"))
                await client.opened()
                await finish(http, "tls")
                assert b"event: end" in await client.body()
                client.close()
            assert replica.stop() == 0
            assert "Traceback" not in replica.output()


def test_tls_needs_a_certificate_and_its_key(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    check_certificate(make_settings(tls_cert=cert, tls_key=key))
    with pytest.raises(SetupError, match=r"TLS_KEY: TLS needs both"):
        load_settings(tls_cert=cert, _env_file=None)
    with pytest.raises(SetupError, match=r"TLS_KEY: TLS needs both"):
        load_settings(tls_key=key, _env_file=None)
    with pytest.raises(SetupError, match=r"nowhere.*No such file"):
        check_certificate(make_settings(tls_cert=cert, tls_key=tmp_path / "nowhere"))
    with pytest.raises(SetupError, match="OpenSSL says"):
        check_certificate(make_settings(tls_cert=cert, tls_key=cert))


LINE = {"type": "log", "data": {"message": "m"}}


def call(replica: ApiReplica, method: str, path: str, **options: Any) -> httpx.Response:
    return httpx.request(method, f"{replica.url}{path}", **options)


@pytest.mark.asyncio(loop_factories=["asyncio"])  # it has a loop of its own, which is uvloop's
class TestShutdown:
    """The server as users run it, when it is stopped."""

    @pytest.fixture
    def replica(self, redis_url: str, tmp_path: Path) -> Iterator[ApiReplica]:
        with ApiReplica(redis_url, tmp_path / "log", drain_s=1) as replica:
            httpx.post(f"{replica.url}{OPS}", json={"id": "a"}, timeout=DEADLINE_S)
            yield replica

    async def ended(self, replica: ApiReplica) -> None:
        assert replica.popen is not None
        await eventually(lambda: replica.popen.poll() is not None, "it ends")
        assert replica.popen.returncode == 0, replica.output()

    async def test_streams_are_told_and_closed(self, replica: ApiReplica) -> None:
        clients = [await Client.connect(replica.url) for _ in range(3)]
        for client in clients:
            client.send(request())
            await client.opened()
        replica.send(signal.SIGTERM)
        for client in clients:
            assert b'{"reason":"draining"}' in await client.body()
            assert await client.rest() == b""
            client.close()
        await self.ended(replica)
        assert "Traceback" not in replica.output()

    @pytest.mark.parametrize("again", [False, True])
    async def test_a_client_that_reads_nothing_does_not_hold_it_up(self, replica: ApiReplica, again: bool) -> None:
        client = await Client.connect(replica.url, receive_buffer=4096)
        client.send(request())
        await client.opened()
        body = [{"type": "log", "data": {"message": "x" * 60_000}}] * 10
        async with httpx.AsyncClient(base_url=replica.url, timeout=DEADLINE_S) as http:
            for _ in range(30):
                (await http.post(f"{OPS}/a/events", json=body)).raise_for_status()
        replica.send(signal.SIGINT)
        if again:
            wait_until(lambda: "Waiting for connections" in replica.output(), "it waits")
            replica.send(signal.SIGINT)
        await self.ended(replica)
        assert (
            "timeout graceful shutdown exceeded" in replica.output()
        ) is not again  # so it did not wait for the stream
        client.close()

    async def test_while_it_drains_it_says_so_and_serves_calls(self, redis_url: str, tmp_path: Path) -> None:
        with ApiReplica(redis_url, tmp_path / "log", drain_s=6) as replica:  # calls can be slow on a busy machine
            call(replica, "POST", OPS, json={"id": "b"})
            clients = [await Client.connect(replica.url) for _ in range(30)]
            for client in clients:
                client.send(request(f"{OPS}/b/stream"))
                await client.opened()
            replica.send(signal.SIGTERM)
            wait_until(lambda: call(replica, "GET", "/readyz").status_code == 503, "it is not ready")
            assert call(replica, "GET", "/readyz").json()["reason"] == "draining"
            assert call(replica, "GET", "/livez").status_code == 200
            newcomer = call(replica, "GET", f"{OPS}/b/stream", headers={"Accept": "text/event-stream"})
            assert '{"reason":"draining"}' in newcomer.text
            assert call(replica, "POST", f"{OPS}/b/events", json=LINE).status_code == 200
            bodies = [await client.body() for client in clients]
            assert all(b'{"reason":"draining"}' in body for body in bodies)
            assert any(
                b"event: log" in body for body in bodies
            )  # streams were served until they were asked to reconnect
            await self.ended(replica)
            for client in clients:
                client.close()

    async def test_what_is_under_way_is_finished(self, redis_url: str, tmp_path: Path) -> None:
        def lines() -> Iterator[bytes]:
            yield b'{"type": "log", "data": {"message": "one"}}\n'
            wait_until(lambda: call(replica, "GET", f"{OPS}/c").json()["events"] == 2, "the first is stored")
            replica.send(signal.SIGTERM)
            wait_until(lambda: "Shutting down" in replica.output() or not ready(), "it is told")
            yield b'{"type": "log", "data": {"message": "two"}}\n'

        def ready() -> bool:
            return call(replica, "GET", "/readyz").status_code == 200

        with ApiReplica(redis_url, tmp_path / "log", drain_s=5) as replica:
            call(replica, "POST", OPS, json={"id": "c"})
            url, headers = f"{OPS}/c/events", {"Content-Type": "application/x-ndjson"}
            answer = await asyncio.to_thread(lambda: call(replica, "POST", url, content=lines(), headers=headers))
            assert answer.json()["accepted"] == 2
            await self.ended(replica)

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    async def test_a_second_signal_ends_it_at_once(
        self, redis_url: str, tmp_path: Path, second: signal.Signals
    ) -> None:
        with ApiReplica(redis_url, tmp_path / "log", drain_s=60) as replica:
            call(replica, "POST", OPS, json={"id": "d"})
            clients = [await Client.connect(replica.url) for _ in range(5)]
            for client in clients:
                client.send(request(f"{OPS}/d/stream"))
                await client.opened()
            replica.send(signal.SIGTERM)
            wait_until(lambda: call(replica, "GET", "/readyz").status_code == 503, "it drains")
            replica.send(second)
            await self.ended(replica)
            assert "Traceback" not in replica.output()
            for client in clients:
                client.close()
