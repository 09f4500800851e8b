"""Upgrade headers for other protocols (RFC 9110, 7.8): they are ignored, and the request is served completely."""

import asyncio
import json
import logging
from collections.abc import Iterator
from itertools import product

import httpx
import orjson
import pytest
import uvloop
from websockets.asyncio.client import connect as connect_websocket

from tests.api.conftest import Connect
from tests.api.raw import STREAM, Client, request
from tests.api.test_operations import OPS, create
from tests.cases import case

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
KEYLESS = HANDSHAKE[:-1]
OFFERS = {
    "h2c": H2C,
    "curl": (H2C[0].replace("Upgrade, ", "Upgrade,"), *H2C[1:]),
    "another": ("Connection: keep-alive, upgrade", "Upgrade: TLS/1.0"),
    "several": ("Connection: Upgrade", "Upgrade: h2c, IRC/6.9", "Upgrade: RTA/x11"),
    "on many lines": ("Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c"),
    "websocket": KEYLESS,
    "websocket among others": (*KEYLESS[:1], "Upgrade: h2c, WebSocket", *KEYLESS[2:]),
}
POSTED = OFFERS | {"a handshake": HANDSHAKE}
BODY = b'{"id": "a", "kind": "import"}'


def create_request(*lines: str, body: bytes = BODY, version: str = "1.1") -> bytes:
    lines = (*lines, "Content-Type: application/json", f"Content-Length: {len(body)}")
    return request(OPS, *lines, method="POST", version=version) + body


async def send_in_pieces(client: Client, data: bytes, sizes: Iterator[int]) -> None:
    while data:
        size = next(sizes)
        client.send(data[:size])
        await client.writer.drain()
        await asyncio.sleep(0)
        data = data[size:]


def all_at_once() -> Iterator[int]:
    yield 1 << 20


def head_first() -> Iterator[int]:
    yield from (create_request(*H2C).index(b"\r\n\r\n") + 4, 1 << 20)


def byte_by_byte() -> Iterator[int]:
    while True:
        yield 1


async def created(client: Client, id: str = "a") -> None:
    status, body = await client.answer()
    assert (status, orjson.loads(body).get("id"), orjson.loads(body).get("kind")) == (201, id, "import")


class TestAnOffer:
    async def test_leaves_the_body_whole(self, connect: Connect) -> None:
        for number, (name, split) in enumerate(product(POSTED, (all_at_once, head_first, byte_by_byte))):
            with case(name, split):
                client, id = await connect(), f"a-{number:02}"
                body = BODY.replace(b'"a"', f'"{id}"'.encode())
                await send_in_pieces(client, create_request(*POSTED[name], body=body), split())
                await created(client, id)
                client.reset()

    async def test_leaves_a_body_in_chunks_whole(self, connect: Connect) -> None:
        client = await connect()
        lines = (*H2C, "Content-Type: application/json", "Transfer-Encoding: chunked")
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:], b""))
        client.send(request(OPS, *lines, method="POST") + chunks)
        await created(client)

    async def test_leaves_a_body_that_awaits_a_100_whole(self, connect: Connect) -> None:
        client = await connect()
        head, _, body = create_request(*H2C, "Expect: 100-continue").partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert (await client.head())[0] == 100
        client.send(body)
        await created(client)

    async def test_leaves_events_whole(self, http: httpx.AsyncClient, connect: Connect) -> None:
        await create(http, id="a")
        client = await connect()
        body = b'{"type": "log", "data": {"message": "one"}}\n{"type": "log", "data": {"message": "two"}}\n'
        lines = (*H2C, "Content-Type: application/x-ndjson", f"Content-Length: {len(body)}")
        client.send(request(f"{OPS}/a/events", *lines, method="POST") + body)
        status, answer = await client.answer()
        assert (status, orjson.loads(answer)["accepted"]) == (200, 2)

    @pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
    async def test_leaves_the_connection_to_the_next_request(self, connect: Connect, offer: tuple[str, ...]) -> None:
        client = await connect()
        client.send(create_request(*offer) + request("/livez", *offer) + request(f"{OPS}/a"))
        await created(client)
        assert (await client.answer())[0] == 200
        assert orjson.loads((await client.answer())[1])["id"] == "a"
        client.send(create_request(*offer))  # the same again: the start is idempotent
        await created(client)

    @pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
    async def test_opens_a_stream_all_the_same(
        self, http: httpx.AsyncClient, connect: Connect, offer: tuple[str, ...]
    ) -> None:
        await create(http, id="a")
        client = await connect()
        client.send(request(STREAM, *offer))
        await client.opened()

    async def test_of_http_1_0_is_ignored_too(self, connect: Connect) -> None:
        client = await connect()
        client.send(create_request(*HANDSHAKE, version="1.0"))
        await created(client)
        assert await client.rest() == b""

    async def test_and_a_close_is_closed_after_its_answer(self, connect: Connect) -> None:
        client = await connect()
        client.send(create_request("Connection: close, Upgrade, HTTP2-Settings", *H2C[1:]))
        await created(client)
        assert await client.rest() == b""

    async def test_writes_nothing_into_the_log(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        for data in (create_request(*H2C), b"this is no HTTP\r\n\r\n"):
            client = await connect()
            client.send(data)
            await client.head()
        assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_a_tunnel_is_rejected(connect: Connect) -> None:
    client = await connect()
    client.send(request("localhost:80", method="CONNECT") + b"anything")
    assert b"HTTP/1.1 400" in await client.rest()


class TestAnOfferOfAWebsocket:
    @pytest.mark.parametrize("path", ["/v1/nothing", "/livez", OPS, f"{OPS}/a/stream/ws", "/ws"])
    async def test_where_there_is_none_is_ignored(self, http: httpx.AsyncClient, connect: Connect, path: str) -> None:
        client = await connect()
        client.send(request(path, *KEYLESS))
        assert (await client.answer())[0] == (await http.get(path)).status_code

    @pytest.mark.parametrize(
        ("method", "lines", "body"),
        [
            ("POST", ("Content-Length: 2",), b"{}"),
            ("GET", ("Content-Length: 2",), b"{}"),
            ("GET", ("Transfer-Encoding: chunked",), b"2\r\n{}\r\n0\r\n\r\n"),
            ("DELETE", (), b""),
        ],
    )
    async def test_by_what_is_no_handshake_is_ignored(
        self, connect: Connect, method: str, lines: tuple[str, ...], body: bytes
    ) -> None:
        client = await connect()
        client.send(request("/v1/ws", *HANDSHAKE, *lines, method=method) + body + request("/livez"))
        assert (await client.answer())[0] in (404, 405, 426)
        assert (await client.answer())[0] == 200

    async def test_behind_a_request_that_is_unanswered_does_not_cut_into_its_answer(self, connect: Connect) -> None:
        client = await connect()
        client.send(request("/livez") + request("/v1/ws", *HANDSHAKE))
        assert (await client.answer())[0] == 200
        assert (await client.answer())[0] in (404, 426)

    OFFERS = (
        HANDSHAKE,
        (*HANDSHAKE[:1], "Upgrade: h2c, WebSocket", *HANDSHAKE[2:]),
        ("Connection: Upgrade", "Connection: keep-alive", *HANDSHAKE[1:]),
        ("Connection: keep-alive, Upgrade", "Upgrade: WebSocket", *HANDSHAKE[2:]),
    )

    async def test_is_taken_by_a_handshake(self, http: httpx.AsyncClient, connect: Connect) -> None:
        await create(http, id="a")
        for offer, split in product(self.OFFERS, (all_at_once, byte_by_byte)):
            with case(offer, split):
                client = await connect()
                client.send(request("/livez"))  # a connection that was used before may also be upgraded
                assert (await client.answer())[0] == 200
                await send_in_pieces(client, request(f"{OPS}/a/ws?from=start", *offer), split())
                status, headers = await client.head()
                assert (status, headers["upgrade"]) == (101, "websocket")
                client.reset()

    async def test_is_taken_from_a_real_client(self, http: httpx.AsyncClient, base_url: str) -> None:
        await create(http, id="a")
        async with connect_websocket(f"{base_url.replace('http', 'ws')}{OPS}/a/ws") as socket:
            assert json.loads(await socket.recv())["event"] == "open"
            assert json.loads(await socket.recv())["event"] == "snapshot"
