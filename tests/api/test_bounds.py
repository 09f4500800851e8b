"""The limits of requests: size, time, and number."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import orjson
import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from progress_broker.runtime.ndjson import MAX_AROUND_BYTES
from progress_broker.settings import Settings
from progress_server.http import bodies
from progress_server.protocols.adoption import AdoptableProtocol
from progress_server.protocols.http import MAX_IGNORED_BYTES, MAX_PIPELINED, PIECE_BYTES, Bounds
from tests.api.conftest import Connect, InLoopServer
from tests.api.raw import STREAM, Client, request
from tests.api.test_operations import OPS, create
from tests.conftest import make_settings
from tests.servers import eventually

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
URL_BYTES, HEAD_BYTES, HEAD_S, CONNECTIONS = 1_000, 4_000, 0.3, 8
EVENT_BYTES = 2_000


@pytest.fixture
def settings() -> Settings:
    return make_settings(
        max_body_bytes=10_000, max_event_bytes=EVENT_BYTES, max_progress_bytes=EVENT_BYTES, request_timeout_s=HEAD_S
    )


@pytest.fixture
def server_options() -> dict[str, Any]:
    return {"http": AdoptableProtocol.within(Bounds(URL_BYTES, HEAD_BYTES, HEAD_S, CONNECTIONS))}


async def rejected(client: Client, status: int, code: str) -> None:
    got, body = await client.answer()
    assert (got, orjson.loads(body)["type"]) == (status, code)
    assert await client.rest() == b"", "it is closed"


async def flood(client: Client, size: int, data: bytes = b"x" * 65_536) -> None:
    for _ in range(0, size, len(data)):
        if client.writer.is_closing():
            raise ConnectionResetError  # aborted while we slept; uvloop raises another error
        client.send(data)
        await client.writer.drain()
        await asyncio.sleep(0.01)


async def drip(client: Client) -> None:
    for i in range(100):
        client.send(b"X-%d: y\r\n" % i)
        await asyncio.sleep(HEAD_S / 10)


class TestAHead:
    async def test_up_to_the_bound_is_taken(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez?" + "x" * (URL_BYTES - 8), "X: " + "y" * (HEAD_BYTES - URL_BYTES - 100)))
        assert (await client.answer())[0] == 200

    async def test_with_a_longer_url_is_rejected(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez?" + "x" * URL_BYTES))
        await rejected(client, 414, "uri-too-long")

    async def test_with_larger_headers_is_rejected(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez", *(f"X-{i}: {'y' * 100}" for i in range(HEAD_BYTES // 100))))
        await rejected(client, 431, "head-too-large")

    async def test_that_goes_on_and_on_is_rejected_before_its_end(self, connect: Connect) -> None:
        client = await connect()
        client.send(b"GET /livez HTTP/1.1\r\nX: ")
        with suppress(ConnectionError, RuntimeError):  # the second is uvloop's error for an aborted connection
            for _ in range(20):
                client.send(b"y" * (HEAD_BYTES // 10))
                await client.writer.drain()
                await asyncio.sleep(0)
        await rejected(client, 431, "head-too-large")

    async def test_that_does_not_end_in_time_is_rejected(self, connect: Connect) -> None:
        client = await connect()
        client.send(b"GET /livez HTTP/1.1\r\nX: ")
        await rejected(client, 408, "request-timeout")

    async def test_that_drips_is_rejected_all_the_same(self, connect: Connect, server: InLoopServer) -> None:
        client = await connect()
        client.send(b"GET /livez HTTP/1.1\r\n")
        dripping = asyncio.create_task(drip(client))
        status, body = await client.answer()
        dripping.cancel()
        assert (status, orjson.loads(body)["type"]) == (408, "request-timeout")
        client.close()
        await eventually(lambda: not server.server_state.connections, "nothing is left of it")

    async def test_that_never_begins_is_not_awaited_for_long(self, connect: Connect) -> None:
        assert await (await connect()).rest() == b""

    async def test_of_a_second_request_has_the_same_time(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez"))
        assert (await client.answer())[0] == 200
        client.send(b"GET /livez HTT")
        await rejected(client, 408, "request-timeout")

    async def test_empty_lines_instead_of_one_keep_nothing_open(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez"))
        assert (await client.answer())[0] == 200
        for _ in range(3):
            client.send(b"\r\n")
            await asyncio.sleep(HEAD_S / 10)
        assert await client.rest() == b""

    async def test_that_has_come_leaves_a_stream_all_its_time(self, http: httpx.AsyncClient, connect: Connect) -> None:
        await create(http, id="a")
        client = await connect()
        client.send(request(STREAM))
        await client.opened()
        await asyncio.sleep(HEAD_S * 2)
        await http.post(f"{OPS}/a/events", json={"type": "log", "data": {"message": "still here"}})
        await client.chunk_with(b"still here")


class TestABody:
    async def test_that_is_announced_too_large_is_not_awaited(self, connect: Connect) -> None:
        client = await connect()
        client.send(request(OPS, "Content-Length: 10001", "Expect: 100-continue", method="POST"))
        status, body = await client.answer()
        assert (status, orjson.loads(body)["type"]) == (413, "too-large")

    async def test_that_drips_is_rejected(self, connect: Connect) -> None:
        client = await connect()
        client.send(request(OPS, "Content-Length: 100", method="POST") + b"{")
        status, body = await client.answer()
        assert (status, orjson.loads(body)["type"]) == (408, "request-timeout")
        assert await client.rest() == b"", "what is left of it is not awaited"

    async def test_that_nobody_wants_is_not_taken_for_ever(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/nowhere", f"Content-Length: {MAX_IGNORED_BYTES * 2}", method="POST"))
        assert (await client.answer())[0] == 404
        with pytest.raises(ConnectionError):
            await flood(client, MAX_IGNORED_BYTES * 2)

    async def test_that_nobody_wants_is_taken_the_less_the_smaller_its_pieces(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/nowhere", "Transfer-Encoding: chunked", method="POST"))
        assert (await client.answer())[0] == 404
        piece = b"1\r\nx\r\n"
        with pytest.raises(ConnectionError):
            await flood(client, 6 * len(piece) * MAX_IGNORED_BYTES // PIECE_BYTES, piece * 8_000)

    async def test_that_comes_in_many_pieces_at_a_time_costs_as_one(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[bytes] = []
        take = HttpToolsProtocol.on_body
        monkeypatch.setattr(HttpToolsProtocol, "on_body", lambda *args: (taken.append(args[1]), take(*args)))
        bodies = [b'{"kind": "import", "id": "%b"}' % id for id in (b"a", b"b")]
        head = request(OPS, "Transfer-Encoding: chunked", "Content-Type: application/json", method="POST")
        client = await connect()
        client.send(b"".join(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n" for body in bodies))
        assert [orjson.loads((await client.answer())[1])["id"] for _ in bodies] == ["a", "b"]
        assert taken == bodies

    async def test_of_lines_may_take_its_time(self, http: httpx.AsyncClient, connect: Connect) -> None:
        await create(http, id="a")
        client = await connect()
        line = b'{"type": "log", "data": {"message": "m"}}\n'
        length = f"Content-Length: {3 * len(line)}"
        client.send(request(f"{OPS}/a/events", length, "Content-Type: application/x-ndjson", method="POST"))
        for _ in range(3):
            await asyncio.sleep(HEAD_S)
            client.send(line)
        status, body = await client.answer()
        assert (status, orjson.loads(body)["accepted"]) == (200, 3)

    @pytest.mark.parametrize("piece", [b"x", b" ", b'{"type":"log","data":{"message":"' + b"m" * 1_000])
    async def test_of_a_line_without_end_is_rejected_at_the_size_of_an_event(
        self, http: httpx.AsyncClient, connect: Connect, piece: bytes
    ) -> None:
        await create(http, id="a")
        client = await connect()
        most = EVENT_BYTES + MAX_AROUND_BYTES
        line = (piece * (most + 1))[: most + 1]
        lines = ("Transfer-Encoding: chunked", "Content-Type: application/x-ndjson")
        body = b'{"type": "log", "data": {"message": "m"}}\n' + line
        client.send(request(f"{OPS}/a/events", *lines, method="POST") + b"%x\r\n%b\r\n" % (len(body), body))
        status, answer = await client.answer()  # although its end has not arrived yet
        told = orjson.loads(answer)
        assert (status, told["type"], told["accepted"]) == (413, "too-large", 1)
        assert told["detail"].startswith("line 2 ")

    async def test_of_lines_that_falls_silent_ends(
        self, http: httpx.AsyncClient, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bodies, "SILENCE_S", 0.2)
        await create(http, id="a")
        client = await connect()
        lines = ("Content-Length: 1000", "Content-Type: application/x-ndjson")
        client.send(request(f"{OPS}/a/events", *lines, method="POST") + b'{"type": "log", "data": {"message": "m"}}\n')
        status, body = await client.answer()
        told = orjson.loads(body)
        assert (status, told["type"], told["accepted"]) == (408, "request-timeout", 1)


class TestManyAtOnce:
    async def test_some_requests_may_follow_each_other(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez") * MAX_PIPELINED)
        for _ in range(MAX_PIPELINED):
            assert (await client.answer())[0] == 200

    async def test_a_flood_of_them_is_cut(self, connect: Connect, server: InLoopServer) -> None:
        client = await connect()
        client.send(request("/livez") * 1000)
        assert (await client.rest()).count(b"HTTP/1.1 200") <= MAX_PIPELINED + 1
        await eventually(lambda: not server.server_state.connections, "nothing is left of it")

    async def test_connections_over_the_bound_are_cut_and_those_there_stay(
        self, http: httpx.AsyncClient, connect: Connect, server: InLoopServer
    ) -> None:
        await create(http, id="a")
        streams = [await connect() for _ in range(CONNECTIONS - 1)]
        for client in streams:
            client.send(request(STREAM))
            await client.opened()
        assert await (await connect()).rest() == b""
        streams.pop().reset()
        await eventually(lambda: len(server.server_state.connections) < CONNECTIONS, "there is room again")
        client = await connect()
        client.send(request(STREAM))
        await client.opened()

    def test_connections_leave_files_for_everything_else(self) -> None:
        assert Bounds.of(make_settings(), 1_000).connections == 900
        assert Bounds.of(make_settings(max_connections=7), 1_000).connections == 7
