"""The app on a real server and a real socket, in the test's own loop, over both backends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.adoption import AdoptableProtocol
from api.app import create_app
from broker.store import Store
from tests.servers import eventually


class InLoopServer(uvicorn.Server):
    """A uvicorn server that leaves the process' signal handlers alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def app(store: Store) -> Any:
    return create_app(store.settings, store)


OUTLETS = {"adopted": AdoptableProtocol, "asgi": HttpToolsProtocol}


@pytest.fixture
def outlet() -> str:
    """How streams leave; a test that is told another one runs over it."""
    return "adopted"


@pytest.fixture
async def base_url(app: Any, outlet: str) -> AsyncIterator[str]:
    server = InLoopServer(
        uvicorn.Config(app, http=OUTLETS[outlet], port=0, log_level="warning", timeout_graceful_shutdown=5)
    )
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or serving.done(), "the server starts")
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    hub = app.state.context.hub
    hub.drain()
    server.should_exit = True
    await serving
    assert hub.channels == {}
    assert len(hub.wheel) == 0


@pytest.fixture
async def http(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base_url, timeout=15) as client:
        yield client
