"""Behaviour specific to WebSockets. Behaviour of all transports is tested in `transports/`."""

import asyncio
import gc
import json
import logging
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from progress_broker.settings import Settings
from progress_broker.stream.subscription import Subscription
from progress_server.limits.admission import DebtBucket
from progress_server.protocols import websocket
from progress_server.protocols.websocket import MAX_QUEUED, BoundedWebSocketProtocol
from progress_server.websocket import socket
from progress_server.websocket.messages import MAX_MESSAGE_BYTES
from progress_server.websocket.outlet import WebSocketMember
from progress_server.websocket.send_queue import SendQueue
from progress_server.websocket.session import FAULTS
from progress_server.websocket.socket import Socket
from tests.api.conftest import InLoopServer
from tests.api.test_operations import OPS, create, finish, publish
from tests.cases import case
from tests.conftest import make_settings
from tests.servers import ApiReplica, RealRedis, eventually

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

DEADLINE_S = 60


class Peer:
    """A client on one socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def ask(self, type: str, **members: object) -> None:
        await self.connection.send(json.dumps({"type": type} | members))

    async def next(self, *events: str) -> dict[str, Any]:
        """Return the next message of one of these kinds; without any, the next."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: dict[str, Any] = json.loads(await self.connection.recv())
                if message["event"] in events or not (events or message["event"] == "ping"):
                    return message

    async def closed(self) -> tuple[int | None, str | None]:
        """Read to the end; return the close code, and the last message's kind."""
        last = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    last = json.loads(await self.connection.recv())["event"]
        except ConnectionClosed as closed:
            return closed.rcvd and closed.rcvd.code, last


Connect = Callable[..., Any]


@pytest.fixture
def dial(base_url: str) -> Connect:
    @asynccontextmanager
    async def dialed(path: str = "/v1/ws", **options: Any) -> AsyncIterator[Peer]:
        url = base_url.replace("http", "ws", 1) + path
        async with connect(url, **({"proxy": None, "close_timeout": 1} | options)) as connection:
            yield Peer(connection)

    return dialed


@pytest.fixture
async def hub(app: Any, http: httpx.AsyncClient) -> Any:
    """The hub of a server that has an operation "a"."""
    await create(http, id="a")
    return app.state.context.hub


async def test_it_tells_what_the_log_calls_it(
    hub: Any, http: httpx.AsyncClient, dial: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await create(http, id="b")
    async with dial() as peer, dial(f"{OPS}/a/ws") as other:
        name = peer.connection.response.headers["Progress-Connection"]
        assert (await peer.next())["connection"] == name
        assert (await other.next())["connection"] == other.connection.response.headers["Progress-Connection"] != name
        for operation in "ab":
            await peer.ask("subscribe", operation=operation)
            await peer.next("snapshot")
        await peer.ask("unsubscribe", operation="b")
        await peer.next("unsubscribed")
        lines = [record for record in caplog.records if getattr(record, "connection", "") == name]
        asked, *streams = [record.getMessage() for record in lines]
        assert "GET /v1/ws 101" in asked
        assert [line.split(":")[0].split(",")[0].split(" after")[0] for line in streams] == [
            f"stream {name} of operation a opened",
            f"stream {name} of operation b opened",
            f"stream {name} of operation b closed",
        ]


async def test_one_that_is_rejected_has_no_name(hub: Any, dial: Connect) -> None:
    async with dial(origin="https://evil.test") as peer:
        assert (await peer.next())["type"] == "forbidden"
        assert "Progress-Connection" not in peer.connection.response.headers
        assert peer.connection.response.headers["X-Request-Id"]


class TestManyOnOneSocket:
    async def test_each_is_told_as_if_it_were_alone(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
        names = ["a", "b", "c"]
        for name in names[1:]:
            await create(http, id=name)
        async with dial() as peer:
            assert (await peer.next())["event"] == "open"
            for ref, name in enumerate(names):
                await peer.ask("subscribe", operation=name, ref=ref)
                assert await peer.next() == {"event": "subscribed", "operation": name, "ref": ref}
                snapshot = await peer.next()
                assert (snapshot["event"], snapshot["data"]["operation"]) == ("snapshot", name)
                assert snapshot["id"] == snapshot["data"]["data"]["position"]
            for name in names * 2:
                await publish(http, name, "log", {"message": name})
                log = await peer.next()
                assert (log["data"]["operation"], log["data"]["data"]) == (name, {"message": name})
            await finish(http, "b")
            assert (await peer.next())["event"] == "end"
            assert await peer.next() == {"event": "unsubscribed", "operation": "b", "reason": "ended"}
            assert len(hub) == 2

    async def test_one_is_left_and_resumed(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
        async with dial() as peer:
            await peer.ask("subscribe", operation="a")
            position = (await peer.next("snapshot"))["id"]
            await peer.ask("unsubscribe", operation="a", ref="x")
            assert await peer.next() == {"event": "unsubscribed", "operation": "a", "reason": "client", "ref": "x"}
            assert not hub.channels
            await publish(http, "a", "log", {"message": "meanwhile"})
            await peer.ask("subscribe", operation="a", last_event_id=position)
            assert (await peer.next())["event"] == "subscribed"
            assert (await peer.next())["data"]["n"] == 2

    async def test_one_that_is_subscribed_to_again_begins_anew(
        self, hub: Any, http: httpx.AsyncClient, dial: Connect
    ) -> None:
        async with dial() as peer:
            await peer.ask("subscribe", operation="a")
            await peer.next("snapshot")
            await publish(http, "a", "log", {"message": "m"})
            await peer.next("log")
            await peer.ask("subscribe", operation="a", types=["log"], **{"from": "start"})
            assert (await peer.next())["event"] == "subscribed"
            assert (await peer.next())["data"]["n"] == 2
            assert len(hub) == 1

    async def test_one_that_has_ended_is_told_so(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
        await finish(http, "a")
        end = (await http.get(f"{OPS}/a")).json()["position"]
        async with dial() as peer:
            await peer.ask("subscribe", operation="a", last_event_id=end, ref=1)
            assert await peer.next("unsubscribed", "subscribed") == {
                "event": "unsubscribed", "operation": "a", "reason": "ended", "ref": 1
            }  # fmt: skip

    async def test_one_that_is_deleted_leaves_the_others(
        self, hub: Any, http: httpx.AsyncClient, dial: Connect
    ) -> None:
        await create(http, id="b")
        async with dial() as peer:
            for name in ("a", "b"):
                await peer.ask("subscribe", operation=name)
                await peer.next("snapshot")
            await http.delete(f"{OPS}/a?force=true")
            assert await peer.next() == {"event": "unsubscribed", "operation": "a", "reason": "gone"}
            await publish(http, "b", "log", {"message": "m"})
            assert (await peer.next())["event"] == "log"

    async def test_are_streams_to_who_counts(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
        await create(http, id="b")
        async with dial() as peer:
            for name in ("a", "b"):
                await peer.ask("subscribe", operation=name)
                await peer.next("snapshot")
            told = (await http.get("/metrics")).text
            assert 'progress_broker_streams{outlet="websocket",state="live"} 2.0' in told
            assert "progress_broker_websockets 1.0" in told

    class TestLimit:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(max_operations_per_stream=2)

        async def test_is_told(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
            for name in ("b", "c"):
                await create(http, id=name)
            async with dial() as peer:
                for name in ("a", "b", "c"):
                    await peer.ask("subscribe", operation=name, ref=name)
                problem = await peer.next("problem")
                assert (problem["type"], problem["operation"], problem["ref"]) == ("invalid", "c", "c")
                assert "2 operations" in problem["detail"]
                await peer.ask("subscribe", operation="a")
                assert (await peer.next("subscribed"))["operation"] == "a"
                await peer.ask("unsubscribe", operation="a")
                await peer.ask("subscribe", operation="c")
                assert (await peer.next("unsubscribed", "problem"))["event"] == "unsubscribed"
                assert (await peer.next("subscribed"))["operation"] == "c"

    class TestSlowClients:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(ring_length=16, page_length=10)

        async def test_miss_nothing_of_any_operation_and_hold_no_more_than_one(
            self, app: Any, http: httpx.AsyncClient, dial: Connect, monkeypatch: pytest.MonkeyPatch
        ) -> None:
            held = [0]
            put = SendQueue.put

            def measured(self: Any, texts: Any, size: int) -> None:
                put(self, texts, size)
                held[0] = max(held[0], self._size)

            monkeypatch.setattr(SendQueue, "put", measured)
            names = [f"op-{i}" for i in range(30)]
            async with dial(max_queue=1) as peer:
                for name in names:
                    await create(http, id=name)
                    await peer.ask("subscribe", operation=name)
                    await peer.next("snapshot")
                body = [{"type": "log", "data": {"message": "x" * 20_000}}] * 20
                for name in names:
                    (await http.post(f"{OPS}/{name}/events", json=body)).raise_for_status()
                tally = app.state.context.hub.tally
                assert tally.slowed["websocket"]
                for name in names:
                    await finish(http, name)
                got: Counter[str] = Counter()
                numbers: dict[str, list[int]] = {name: [] for name in names}
                ended = set()
                while len(ended) < len(names):
                    message = await peer.next()
                    if message["event"] == "unsubscribed":
                        ended.add(message["operation"])
                    else:
                        got[message["event"]] += 1
                        numbers[message["data"]["operation"]].append(message["data"]["n"])
            assert all(each == list(range(2, 23)) for each in numbers.values())
            limit = app.state.context.settings.client_buffer_bytes
            assert held[0] < limit + 16_384 + 21_000, "a write and its last event, over the bound"


class TestCancelling:
    async def test_reaches_the_worker_and_is_answered(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
        await publish(http, "a", "status", {"status": "running"})
        for path in ("/v1/ws", f"{OPS}/a/ws"):
            async with dial(path) as peer:
                await peer.ask("cancel", operation="a", reason="enough", by="me", ref=1)
                assert await peer.next("cancelled") == {
                    "event": "cancelled", "operation": "a", "status": "cancelling", "ref": 1
                }  # fmt: skip
        asked = (await http.get(f"{OPS}/a")).json()["cancel"]
        assert (asked["reason"], asked["by"]) == ("enough", "me")

    async def test_is_told_as_an_event_to_who_follows(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
        async with dial(f"{OPS}/a/ws") as peer:
            await peer.next("snapshot")
            await peer.ask("cancel", force=True)
            assert (await peer.next("end"))["data"]["data"]["status"] == "cancelled"
            assert (await peer.closed())[0] == 1000

    async def test_what_can_not_be_cancelled_is_a_problem(self, hub: Any, dial: Connect) -> None:
        async with dial() as peer:
            await peer.ask("cancel", operation="nope", ref="r")
            problem = await peer.next("problem")
            assert (problem["type"], problem["status"]) == ("not-found", 404)
            assert (problem["operation"], problem["ref"]) == ("nope", "r")
            await peer.ask("cancel")
            assert (await peer.next("problem"))["field"] == "operation"


class TestMessages:
    NONE: ClassVar[list[tuple[str | bytes, str | None]]] = [
        ("", None),
        ("{", None),
        ("[]", "type"),
        ("null", "type"),
        ("{}", "type"),
        ('{"type": "shout"}', "type"),
        ('{"type": ["ping"]}', "type"),
        ('{"type": "subscribe"}', "operation"),
        ('{"type": "subscribe", "operation": "/"}', "operation"),
        ('{"type": "subscribe", "operation": "a", "lastEventId": "1-1"}', "lastEventId"),
        ('{"type": "subscribe", "operation": "a", "last_event_id": "x"}', "position"),
        ('{"type": "subscribe", "operation": "a", "types": ["A"]}', "types"),
        ('{"type": "subscribe", "operation": "a", "interval_ms": -1}', "interval_ms"),
        ('{"type": "unsubscribe", "operation": "a"}', "operation"),
        ('{"type": "ping", "ref": 1e300}', "ref"),
        ('{"type": "ping", "ref": {}}', "ref"),
        (b'{"type": "ping"}', None),
    ]

    async def test_that_are_none_are_a_problem_and_no_more(self, hub: Any, dial: Connect) -> None:
        for said, field in self.NONE:
            with case(said):
                async with dial() as peer:
                    await peer.connection.send(said)
                    problem = await peer.next("problem")
                    assert (problem["type"], problem.get("field", "").split(".")[0]) == ("invalid", field or "")
                    await peer.ask("ping", ref="still here")
                    assert await peer.next() == {"event": "pong", "ref": "still here"}

    async def test_problems_name_what_they_are_about_as_far_as_it_is_known(self, hub: Any, dial: Connect) -> None:
        async with dial() as peer:
            await peer.connection.send('{"type": "shout", "operation": "a", "ref": "r"}')
            problem = await peer.next("problem")
            assert (problem["operation"], problem["ref"]) == ("a", "r")

    async def test_that_are_none_again_and_again_end_the_socket(self, hub: Any, dial: Connect) -> None:
        async with dial() as peer:
            for _ in range(FAULTS + 5):
                await peer.connection.send("{}")
            assert await peer.closed() == (1008, "problem")

    async def test_that_are_too_large_end_the_socket_or_are_a_problem(self, hub: Any, dial: Connect) -> None:
        async with dial() as peer:
            await peer.connection.send(json.dumps({"type": "ping", "ref": "x" * MAX_MESSAGE_BYTES}))
            assert (await peer.next("problem"))["type"] == "too-large"

    class TestWhereTheServerKnows:
        @pytest.fixture
        def server_options(self) -> dict[str, Any]:
            return {"ws_max_size": MAX_MESSAGE_BYTES}

        async def test_too_large_ones_end_it(self, hub: Any, dial: Connect) -> None:
            async with dial() as peer:
                await peer.connection.send("x" * (MAX_MESSAGE_BYTES + 1))
                assert (await peer.closed())[0] == 1009
            await eventually(lambda: not hub.connections, "it is forgotten")

    async def test_a_flood_ends_the_socket(self, hub: Any, dial: Connect) -> None:
        async with dial() as peer:
            peer.connection.protocol.max_size = None
            frames = []
            for _ in range(2 * MAX_QUEUED):
                peer.connection.protocol.send_text(b'{"type":"ping"}')
                frames += peer.connection.protocol.data_to_send()
            peer.connection.transport.write(b"".join(frames))
            assert (await peer.closed())[0] == 1008

    async def test_a_message_in_endlessly_many_pieces_ends_the_socket(self, hub: Any, dial: Connect) -> None:
        async def pieces() -> AsyncIterator[str]:
            for _ in range(1000):
                yield ""

        async with dial() as peer:
            with suppress(ConnectionClosed):
                await peer.connection.send(pieces())
            assert (await peer.closed())[0] == 1008


def test_an_allowance_lets_pass_what_it_holds_and_then_what_comes_in_time() -> None:
    now = 0.0
    allowance = DebtBucket(10, 3, lambda: now)
    assert [allowance.take() for _ in range(3)] == [0, 0, 0]
    assert [allowance.take() for _ in range(2)] == pytest.approx([0.1, 0.2])
    now = 0.2
    assert allowance.take() == pytest.approx(0.1)
    now = 100
    assert [allowance.take() for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


class TestOrigins:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(cors_origins=("https://app.example.org",))

    @pytest.mark.parametrize("path", ["/v1/ws", f"{OPS}/a/ws"])
    async def test_foreign_pages_are_rejected(self, hub: Any, dial: Connect, path: str) -> None:
        for origin in ("https://evil.example", "null"):
            async with dial(path, origin=origin) as peer:
                problem = await peer.next()
                assert (problem["event"], problem["type"]) == ("problem", "forbidden")
                assert (await peer.closed())[0] == 4003

    async def test_our_pages_those_listed_and_no_pages_are_not(self, hub: Any, base_url: str, dial: Connect) -> None:
        for origin in (base_url, "https://app.example.org", None):
            async with dial(origin=origin) as peer:
                assert (await peer.next())["event"] == "open"


class TestRejections:
    @pytest.mark.parametrize(
        ("path", "code", "type"),
        [
            (f"{OPS}/nope/ws", 4004, "not-found"),
            (f"{OPS}/a/ws?from=end", 4022, "invalid"),
            (f"{OPS}/a/ws?last_event_id=x", 4022, "invalid"),
            (f"{OPS}/%00/ws", 4022, "invalid"),
        ],
    )
    async def test_tell_why(self, hub: Any, dial: Connect, path: str, code: int, type: str) -> None:
        async with dial(path) as peer:
            assert (await peer.next("problem"))["type"] == type
            assert (await peer.closed())[0] == code

    @pytest.mark.usefixtures("admission_clock")
    class TestOfHandshakes:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(handshakes_per_s=1)

        async def test_tell_when_to_come_back(self, hub: Any, dial: Connect) -> None:
            async with dial() as first, dial(f"{OPS}/a/ws") as second:
                assert (await first.next())["event"] == "open"
                problem = await second.next()
                assert (problem["type"], problem["status"]) == ("at-capacity", 503)
                assert 0 < problem["retry_ms"] <= 30_000
                assert (await second.closed())[0] == 1013
            assert hub.tally.rejected["at-capacity"] == 1

    class TestWhenDraining:
        async def test_send_elsewhere(self, hub: Any, dial: Connect) -> None:
            hub.drain()
            for path in ("/v1/ws", f"{OPS}/a/ws"):
                async with dial(path) as peer:
                    assert await peer.closed() == (1012, "reconnect")


class TestItsEnd:
    async def test_a_client_that_leaves_is_forgotten(self, hub: Any, server: InLoopServer, dial: Connect) -> None:
        left = server.server_state.connections
        for path in ("/v1/ws", f"{OPS}/a/ws"):
            for cut in (False, True):
                async with dial(path) as peer:
                    if path == "/v1/ws":
                        await peer.ask("subscribe", operation="a")
                    await peer.next("snapshot")
                    if cut:
                        peer.connection.transport.abort()
                await eventually(lambda: not hub.channels, "its subscription is forgotten")
                await eventually(lambda: not hub.connections, "so is its socket")
                await eventually(
                    lambda: not any(isinstance(each, BoundedWebSocketProtocol) for each in left), "and the connection"
                )
        await eventually(lambda: not server.server_state.tasks, "and its task")

    async def test_a_drain_is_told_once_also_where_nothing_is_followed(
        self, hub: Any, http: httpx.AsyncClient, dial: Connect
    ) -> None:
        await create(http, id="b")
        async with dial() as many, dial() as none:
            for name in ("a", "b"):
                await many.ask("subscribe", operation=name)
                await many.next("snapshot")
            await none.next()
            hub.drain(1)
            for peer in (many, none):
                reconnect = await peer.next()
                assert (reconnect["event"], reconnect["reason"]) == ("reconnect", "draining")
                assert reconnect["retry_ms"] > 0
                assert (await peer.closed())[0] == 1012
        assert hub.tally.closed["draining"] == 2

    class TestAge:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(stream_max_age_s=0.3)

        async def test_ends_one_that_follows_nothing(self, hub: Any, dial: Connect) -> None:
            async with dial() as peer:
                assert (await peer.next("reconnect"))["reason"] == "max-age"
                assert (await peer.closed())[0] == 1013

    class TestPings:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(ping_s=0.2)

        async def test_come_once_for_all_operations(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
            async with dial() as peer:
                await peer.ask("subscribe", operation="a")
                assert await peer.next("ping") == {"event": "ping"}

    @pytest.fixture
    def uncollected(self) -> Iterator[None]:
        gc.collect()
        gc.disable()
        yield
        gc.enable()

    @pytest.mark.usefixtures("uncollected")
    async def test_leaves_nothing_for_the_collector(self, hub: Any, dial: Connect) -> None:
        def census() -> Counter[str]:
            kinds = (Socket, WebSocketMember, SendQueue, Subscription, BoundedWebSocketProtocol)
            return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))

        before = census()
        async with dial() as peer:
            await peer.ask("subscribe", operation="a")
            await peer.next("snapshot")
        await eventually(lambda: census() <= before, "all is gone")


def the_one(server: InLoopServer) -> BoundedWebSocketProtocol:
    [connection] = [each for each in server.server_state.connections if isinstance(each, BoundedWebSocketProtocol)]
    return connection


async def fill(http: httpx.AsyncClient, hub: Any) -> None:
    """Publish until the buffers of both kernels and the send queue of the WebSocket are full."""
    body = [{"type": "log", "data": {"message": "x" * 60_000}}] * 10
    [one] = hub.connections
    for _ in range(60):
        (await http.post(f"{OPS}/a/events", json=body)).raise_for_status()
        full_since = one._send_queue.full_since
        await asyncio.sleep(0.02)
        if one not in hub.connections or (full_since is not None and one._send_queue.full_since == full_since):
            return  # on a busy machine it may already have been aborted
    raise AssertionError("it never became slow")


class TestStuckClients:
    """Clients that read nothing."""

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(client_buffer_bytes=4096, stuck_timeout_s=0.5, ping_s=0.2)

    @pytest.mark.parametrize("path", ["/v1/ws", f"{OPS}/a/ws"])
    async def test_are_cut_off(
        self, hub: Any, http: httpx.AsyncClient, server: InLoopServer, dial: Connect, path: str
    ) -> None:
        async with dial(path, max_queue=1) as peer:
            connection = the_one(server)
            if path == "/v1/ws":
                await peer.ask("subscribe", operation="a")
            await peer.next("snapshot")
            await fill(http, hub)
            await eventually(lambda: connection not in server.server_state.connections, "it is cut off")
            assert hub.tally.closed["stuck"] == 1
            await eventually(lambda: not hub.connections, "it is forgotten")

    class TestWithoutHaste:
        @pytest.fixture
        def settings(self) -> Settings:
            return make_settings(client_buffer_bytes=4096)

        async def test_are_cut_off_soon_after_a_drain(
            self,
            hub: Any,
            http: httpx.AsyncClient,
            server: InLoopServer,
            dial: Connect,
            monkeypatch: pytest.MonkeyPatch,
        ) -> None:
            monkeypatch.setattr(socket, "LINGER_S", 0.1)
            async with dial(f"{OPS}/a/ws", max_queue=1) as peer:
                connection = the_one(server)
                await peer.next("snapshot")
                await fill(http, hub)
                hub.drain()
                await eventually(lambda: connection not in server.server_state.connections, "it is cut off")

        async def test_are_cut_off_when_they_do_not_close_in_turn(
            self, hub: Any, server: InLoopServer, dial: Connect, monkeypatch: pytest.MonkeyPatch
        ) -> None:
            monkeypatch.setattr(websocket, "_LINGER_S", 0.1)
            async with dial() as peer:
                connection = the_one(server)
                await peer.next()
                peer.connection.transport.pause_reading()
                hub.drain()
                await eventually(lambda: connection not in server.server_state.connections, "it is cut off")

        async def test_who_only_asks_is_not_answered_without_end(self, hub: Any, app: Any, dial: Connect) -> None:
            async with dial(max_queue=1) as peer:
                await peer.next()
                peer.connection.transport.pause_reading()
                ref = "x" * 128
                for _ in range(300):
                    await peer.ask("ping", ref=ref)
                [one] = hub.connections
                assert one._send_queue._size < 4096 + 200


class TestOnAServerThatKnowsNothingOfUs:
    @pytest.fixture
    def server_options(self) -> dict[str, Any]:
        return {"ws": "websockets-sansio"}

    async def test_all_goes_on(self, hub: Any, http: httpx.AsyncClient, dial: Connect) -> None:
        async with dial() as peer:
            await peer.ask("subscribe", operation="a")
            await peer.next("snapshot")
            await finish(http, "a")
            assert (await peer.next())["event"] == "end"
            hub.drain()
            assert (await peer.closed())[0] == 1012


@pytest.mark.asyncio(loop_factories=["asyncio"])  # it has a loop of its own, which is uvloop's
class TestServed:
    """With the server as users run it."""

    async def test_ends_in_time_with_sockets_open_and_logs_nothing_of_them(
        self, redis_server: RealRedis, tmp_path: Path
    ) -> None:
        with ApiReplica(redis_server.url, tmp_path / "log", drain_s=2, log_level="debug") as replica:
            async with httpx.AsyncClient(base_url=replica.url, timeout=DEADLINE_S) as http:
                await http.post(OPS, json={"id": "ws"})
                url = replica.url.replace("http", "ws", 1)
                quiet = {"proxy": None, "close_timeout": 1.0, "max_queue": 1}
                async with (
                    connect(f"{url}/v1/ws", **quiet) as idle,
                    connect(f"{url}{OPS}/ws/ws?ticket=secret", **quiet) as live,
                    connect(f"{url}{OPS}/ws/ws", **quiet) as stuck,
                ):
                    await Peer(live).next("snapshot")
                    stuck.transport.pause_reading()
                    for _ in range(20):
                        body = [{"type": "log", "data": {"message": "x" * 60_000}}] * 10
                        (await http.post(f"{OPS}/ws/events", json=body)).raise_for_status()
                        for _ in body:
                            await Peer(live).next("log")
                    replica.send(signal.SIGTERM)
                    assert await Peer(idle).closed() == (1012, "reconnect")
                    assert await Peer(live).closed() == (1012, "reconnect")
                    assert replica.popen is not None
                    await eventually(lambda: replica.popen.poll() is not None, "it ends")
            assert replica.popen.returncode == 0
            output = replica.output()
            assert "Traceback" not in output
            assert "secret" not in output
            assert "xxxx" not in output

    async def test_another_replica_goes_on_where_one_was_killed(self, redis_server: RealRedis, tmp_path: Path) -> None:
        names = [f"killed-{i}" for i in range(5)]
        got: dict[str, list[int]] = {name: [] for name in names}
        position: dict[str, str] = {}

        async def follow(url: str) -> None:
            async with connect(f"{url.replace('http', 'ws', 1)}/v1/ws", proxy=None) as connection:
                peer = Peer(connection)
                for name in names:
                    await peer.ask("subscribe", operation=name, last_event_id=position.get(name, "0-0"))
                left = set(names)
                while left:
                    message = await peer.next()
                    if message["event"] == "unsubscribed":
                        left.discard(message["operation"])
                    elif "data" in message and message["event"] != "bookmark":
                        name = message["data"]["operation"]
                        got[name].append(message["data"]["n"])
                        position[name] = message["id"]

        async def work(url: str, start: int) -> None:
            async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
                for i in range(start, start + 40):
                    for name in names:
                        await publish(http, name, "log", {"message": str(i)})

        with (
            ApiReplica(redis_server.url, tmp_path / "one") as one,
            ApiReplica(redis_server.url, tmp_path / "other") as other,
        ):
            async with httpx.AsyncClient(base_url=other.url, timeout=DEADLINE_S) as http:
                for name in names:
                    await create(http, id=name)
                following = asyncio.create_task(follow(one.url))
                working = asyncio.create_task(work(other.url, 0))
                await eventually(lambda: all(len(each) > 10 for each in got.values()), "all are followed")
                one.stop(signal.SIGKILL)
                with pytest.raises(ConnectionClosed):
                    await following
                following = asyncio.create_task(follow(other.url))
                await working
                for name in names:
                    await finish(http, name)
                await following
        assert all(each == list(range(1, 43)) for each in got.values())
