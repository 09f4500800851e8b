"""WebSockets where the user's own back end decides."""

import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from tests.api.test_operations import OPS, create, finish, publish
from tests.callback.backend import ALLOW, TheirBackend


@pytest.fixture
async def url(base_url: str, http: httpx.AsyncClient) -> str:
    """The address of an operation's socket."""
    await create(http, id="a")
    return f"{base_url.replace('http', 'ws')}{OPS}/a/ws"


async def until(socket: ClientConnection, event: str) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["event"] != event:
        heard.append(json.loads(await socket.recv()))
    return heard


async def closed(socket: ClientConnection) -> int | None:
    with suppress(ConnectionClosedError):
        async for _ in socket:
            pass
    return socket.close_code


async def test_are_asked_for_and_told_of(theirs: TheirBackend, url: str, http: httpx.AsyncClient) -> None:
    theirs.decide = lambda _: ALLOW | {"events": [{"type": "welcome", "data": 1}]}
    async with connect(f"{url}?tab=7") as socket:
        heard = await until(socket, "snapshot")
        assert [message["event"] for message in heard] == ["open", "welcome", "snapshot"]
        assert ("id" in heard[1], heard[1]["data"]["data"]) == (False, 1)
    asked, notice = theirs.of("connect")[0], await theirs.heard("disconnect")
    assert (asked["operation"], asked["url"]) == ("a", f"{OPS}/a/ws?tab=7")
    assert (notice["connection"], notice["reason"]) == (asked["connection"], "client")
    async with connect(url) as socket:
        await until(socket, "snapshot")
        await finish(http, "a")
        assert await closed(socket) == 1000
    assert (await theirs.heard("disconnect", 2))["reason"] == "ended"


async def test_that_are_rejected_are_closed_as_such(theirs: TheirBackend, url: str) -> None:
    theirs.decide = lambda _: {"allow": False}
    async with connect(url) as socket:
        assert await closed(socket) == 4001
    assert theirs.of("disconnect") == []


async def test_with_a_cookie_come_from_our_pages(theirs: TheirBackend, url: str) -> None:
    async with connect(url, additional_headers={"Cookie": "sid=1"}) as socket:
        assert await closed(socket) == 4001
    assert theirs.of("connect") == []
    ours = url.replace("ws", "http").removesuffix(f"{OPS}/a/http")
    async with connect(url, origin=ours, additional_headers={"Cookie": "sid=1"}) as socket:  # type: ignore[arg-type]
        await until(socket, "snapshot")
    assert theirs.of("connect")[0]["headers"]["cookie"] == "sid=1"


async def test_make_way_for_a_newer_one(theirs: TheirBackend, url: str) -> None:
    theirs.decide = lambda _: ALLOW | {"identifier": "tab"}
    async with connect(url) as older:
        await until(older, "snapshot")
        async with connect(url) as newer:
            await until(newer, "snapshot")
            await until(older, "replaced")
            assert await closed(older) == 4009
            assert (await theirs.heard("disconnect"))["reason"] == "replaced"


@pytest.mark.parametrize(
    "path", [f"{OPS}/nope/ws", f"{OPS}/a/ws?interval_ms=soon", f"{OPS}/ended/ws?last_event_id=END"]
)
async def test_that_open_nothing_replace_nobody(
    theirs: TheirBackend, url: str, http: httpx.AsyncClient, path: str
) -> None:
    theirs.decide = lambda _: ALLOW | {"identifier": "tab"}
    await create(http, id="ended")
    await finish(http, "ended")
    path = path.replace("END", (await http.get(f"{OPS}/ended")).json()["position"])
    async with connect(url) as live:
        await until(live, "snapshot")
        async with connect(url.removesuffix(f"{OPS}/a/ws") + path) as other:
            await closed(other)
        await theirs.heard("disconnect")
        await publish(http, "a", "log", {"message": "still here"})
        assert "replaced" not in [message["event"] for message in await until(live, "log")]


@pytest.mark.parametrize("path", ["/v1/ws", f"{OPS}/later/ws?wait_s=20"])
async def test_of_either_kind_replace_when_they_are_open(theirs: TheirBackend, url: str, path: str) -> None:
    theirs.decide = lambda _: ALLOW | {"identifier": "tab"}
    async with connect(url) as older:
        await until(older, "snapshot")
        async with connect(url.removesuffix(f"{OPS}/a/ws") + path) as newer:
            await until(newer, "open")
            await until(older, "replaced")
