"""The server in a FastAPI app on uvicorn, with middleware around it that buffers, compresses or copies."""

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from progress_broker.hub import Hub
from progress_server.protocols.adoption import AdoptableProtocol
from progress_server.sse.response import _log_once
from tests.api.conftest import InLoopServer
from tests.api.raw import Client
from tests.conftest import make_settings
from tests.mounted.apps import MIDDLEWARE, make_app
from tests.mounted.visit import ALICE, OPS, following, start, visit
from tests.servers import eventually

PROTOCOLS = {"adopted": AdoptableProtocol.for_any_app(), "asgi": HttpToolsProtocol}
HOLDS = ("base", "all")
"""Middleware that sends the head of a response later than it was given it."""


@pytest.fixture(params=MIDDLEWARE)
def middleware(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def app(redis_url: str, middleware: str) -> FastAPI:
    return make_app(make_settings(redis_url=redis_url), middleware)


@pytest.fixture
async def http(app: FastAPI, protocol: str) -> AsyncIterator[httpx.AsyncClient]:
    _log_once.cache_clear()
    options = {"port": 0, "log_level": "warning", "timeout_graceful_shutdown": 5}
    server = InLoopServer(uvicorn.Config(app, http=PROTOCOLS[protocol], **options))  # type: ignore[arg-type]
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or serving.done(), "it starts")
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client
    server.should_exit = True
    await serving


@pytest.mark.parametrize("middleware", ["none"], indirect=True)
@pytest.mark.parametrize("protocol", ["adopted"], indirect=True)
async def test_a_request_that_can_not_be_read_is_not_passed_to_the_app(app: FastAPI, http: httpx.AsyncClient) -> None:
    seen: list[str] = []
    app.mount("/", seen_by(seen))
    client = await Client.connect(str(http.base_url))
    client.send(b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, body = await client.answer()
    assert (status, orjson.loads(body)["type"], seen) == (414, "uri-too-long", [])
    client.close()
    assert (await http.get("/other")).status_code == 200
    assert seen == ["GET"]


def seen_by(seen: list[str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["method"])
        await Response()(scope, receive, send)

    return app


def hub_of(app: FastAPI) -> Hub:
    hub: Hub = app.state.progress._server.state.context.hub
    return hub


async def test_middleware_breaks_no_stream(
    app: FastAPI, http: httpx.AsyncClient, middleware: str, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "progress_server")
    await visit(http, "a")
    hub = hub_of(app)
    await eventually(lambda: not hub.channels and not hub.connections, "who has left is forgotten")
    async with following(http, "a") as stream:
        told = await stream.until("end")
    assert told.json["data"]["status"] == "cancelled"
    await start(http, "b")
    async with following(http, "b") as stream:
        await stream.until("snapshot")
        hub.drain()
        assert (await stream.until("reconnect")).data == '{"reason":"draining"}'
    how = "over ASGI, although" if middleware in HOLDS and protocol == "adopted" else {"adopted": "take over"}
    how = how if isinstance(how, str) else how.get(protocol, "are sent over ASGI")
    assert [how in record.message for record in caplog.records if record.name.startswith("progress_server.sse")] == [
        True
    ]
    outer = (await http.get(f"{OPS}/a", headers=ALICE)).headers.get("x-outer")
    assert (outer == "1") is (middleware in ("base", "all"))
