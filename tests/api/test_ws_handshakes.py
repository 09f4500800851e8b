"""Invalid and incomplete WebSocket handshakes, sent from a raw socket, as no client library would send them."""

import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.api.raw import Client, request
from tests.api.test_operations import OPS, create
from tests.servers import eventually

PATH = f"{OPS}/a/ws"
KEY = "Sec-WebSocket-Key: " + base64.b64encode(bytes(16)).decode()
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
Dial = Callable[[], Awaitable[Client]]


@pytest.fixture
async def dial(base_url: str) -> AsyncIterator[Dial]:
    clients: list[Client] = []

    async def dialed() -> Client:
        clients.append(await Client.connect(base_url))
        return clients[-1]

    yield dialed
    for client in clients:
        client.writer.transport.abort()


@pytest.fixture(autouse=True)
def uncomplaining(caplog: pytest.LogCaptureFixture) -> Any:
    """Nothing that a client sends is logged as our error."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
async def hub(app: Any, http: httpx.AsyncClient) -> Any:
    await create(http, id="a")
    return app.state.context.hub


async def test_a_whole_one_is_accepted(hub: Any, dial: Dial) -> None:
    client = await dial()
    client.send(request(PATH, *UPGRADE, "Sec-WebSocket-Version: 13", KEY))
    assert (await client.head())[0] == 101


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Sec-WebSocket-Version: 13",), 426),
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"), 426),
        (("Sec-WebSocket-Version: 12", KEY), 426),
        ((KEY,), 426),
        (("Sec-WebSocket-Version: 13", KEY, *(f"X-{i}: {i}" for i in range(200))), 431),
        (("Sec-WebSocket-Version: 13", KEY, f"X-Long: {'x' * 9_000}"), 431),
        (("Sec-WebSocket-Version: 13", KEY, "X-Latin: caf\u00e9"), 101),
    ],
)
async def test_what_is_none_is_rejected(hub: Any, dial: Dial, lines: tuple[str, ...], status: int) -> None:
    client = await dial()
    client.send(request(PATH, "X-Request-Id: mine", *UPGRADE, *lines))
    got, headers = await client.head()
    assert got == status
    if status == 426:
        assert (headers["upgrade"], headers["sec-websocket-version"]) == ("websocket", "13")
        assert headers["x-request-id"] == "mine"
    if status != 101:
        client.half_close()
        await client.rest()
        assert not hub.connections


async def test_a_path_without_a_socket_is_rejected(hub: Any, dial: Dial) -> None:
    client = await dial()
    client.send(request("/v1/operations", *UPGRADE, "Sec-WebSocket-Version: 13", KEY))
    assert (await client.head())[0] in (403, 404)


async def test_a_text_that_is_none_ends_it_without_an_error(hub: Any, dial: Dial) -> None:
    client = await dial()
    client.send(request(PATH, *UPGRADE, "Sec-WebSocket-Version: 13", KEY))
    assert (await client.head())[0] == 101
    client.send(b"\x81\x82\0\0\0\0\xff\xfe")
    assert b"\x88\x1a\x03\xef" in await client.rest(), "closed by 1007"


@pytest.mark.parametrize(
    "junk", [b"\0" * 100, b"\x81\x05hello", b"\xff" * 50, b"\x83\x80....", b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_frame_ends_it(hub: Any, dial: Dial, junk: bytes) -> None:
    client = await dial()
    client.send(request(PATH, *UPGRADE, "Sec-WebSocket-Version: 13", KEY))
    assert (await client.head())[0] == 101
    client.send(junk)
    await client.rest()
    await eventually(lambda: not hub.connections and not hub.channels, "it is forgotten")


@pytest.mark.parametrize("sent", [30, 120, -1])
async def test_one_that_is_broken_off_leaves_nothing(hub: Any, server: Any, dial: Dial, sent: int) -> None:
    client = await dial()
    client.send(request(PATH, *UPGRADE, "Sec-WebSocket-Version: 13", KEY)[:sent])
    client.reset()
    await eventually(lambda: not hub.connections and not server.server_state.tasks, "nothing is left")
