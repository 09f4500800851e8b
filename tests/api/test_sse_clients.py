"""Independent clients of server-sent events make nothing but events of a stream: no empty `message` events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from aiosseclient import aiosseclient
from httpx_sse import aconnect_sse

from progress_broker.settings import Settings
from tests import sse
from tests.api.conftest import Connect
from tests.api.raw import request
from tests.api.test_operations import OPS, create, finish, publish
from tests.conftest import make_settings

PATHS = {"one": f"{OPS}/a/stream?children=true", "many": "/v1/stream?operation=a"}
PINGS = 3


@pytest.fixture(params=["adopted", "asgi"])
def outlet(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def settings() -> Settings:
    return make_settings(ping_s=0.3, gzip_min_bytes=1)


async def with_httpx_sse(url: str, encoding: str) -> AsyncIterator[tuple[str, str]]:
    headers = {"Accept-Encoding": encoding}
    async with httpx.AsyncClient(timeout=60) as http, aconnect_sse(http, "GET", url, headers=headers) as source:
        async for event in source.aiter_sse():
            yield event.event, event.data


async def with_aiosseclient(url: str, encoding: str) -> AsyncIterator[tuple[str, str]]:
    async with aclosing(aiosseclient(url, headers={"Accept-Encoding": encoding})) as events:
        async for event in events:
            yield event.event, event.data


@pytest.fixture
async def told_of_the_end(app: Any, http: httpx.AsyncClient) -> AsyncIterator[asyncio.Task[None]]:
    """An operation that ends when its stream has had some pings."""
    await create(http, id="a")
    await create(http, id="child", parent="a")
    tally = app.state.context.hub.tally

    async def end() -> None:
        def written() -> int:
            return sum(each.bytes for each in tally.written.values())

        pings, last = 0, written()
        while pings < PINGS:  # nothing but pings is written now
            await asyncio.sleep(0.01)
            now = written()
            pings, last = pings + (0 < now - last < 40), now
        await publish(http, "a", "log", {"message": "after pings"})
        await finish(http, "a")

    task = asyncio.create_task(end())
    yield task
    await task


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("read", [with_httpx_sse, with_aiosseclient])
@pytest.mark.parametrize("path", PATHS)
async def test_pings_and_openings_are_no_events(
    base_url: str, told_of_the_end: asyncio.Task[None], read: Any, path: str, encoding: str
) -> None:
    async with asyncio.timeout(60):
        events = [event async for event in read(base_url + PATHS[path], encoding)]
    names = [name for name, _ in events]
    assert "message" not in names
    assert "" not in [data for _, data in events]
    assert names[-2:] == ["log", "end"]


@pytest.mark.parametrize("outlet", ["adopted"])
async def test_http_1_0_too(connect: Connect, told_of_the_end: asyncio.Task[None]) -> None:
    client = await connect()
    client.send(request(f"{OPS}/a/stream", version="1.0"))
    await client.head()
    body = await client.rest()
    blocks = body.split(b"\n\n")
    assert blocks[-1] == b""
    assert all(b"data: " in block for block in blocks[:-1]), "no block is without data"
    assert body.count(b": ping\n") >= PINGS
    assert [message.type for message in sse.read(body)] == ["snapshot", "log", "end"]


async def test_an_idle_ping_is_sent_at_once(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream") as answer, asyncio.timeout(60):
        got = b""
        async for chunk in answer.aiter_bytes():
            got += chunk
            if got.endswith(b"\n: ping\n"):
                break
    assert got.count(b"\n\n") == 1, "the snapshot is the only block"
