"""The app on a real server and a real socket, in the event loop of the test, before a real Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from progress_broker.operations.store import Store
from progress_server.app import create_app
from progress_server.limits.admission import AdmissionMiddleware
from progress_server.protocols.adoption import AdoptableProtocol
from progress_server.protocols.websocket import BoundedWebSocketProtocol
from tests.api.raw import Client
from tests.servers import eventually

Connect = Callable[..., Awaitable[Client]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """asyncio's event loop. A module whose tests also run on others lists all of them in `LOOPS`."""
    return getattr(item.module, "LOOPS", None) or {"asyncio": asyncio.new_event_loop}  # type: ignore[attr-defined]


class InLoopServer(uvicorn.Server):
    """A uvicorn server that does not set signal handlers, and reacts at once when it should stop."""

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(0.01)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
def backend() -> str:
    """What the store is over: the real server takes less than the double, and no client of the API could tell."""
    return "redis"


@pytest.fixture
async def app(store: Store) -> Any:
    return create_app(store.settings, store)


class Clock:
    """A clock that stands still until a test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def admission_clock(app: Any) -> Clock:
    """Freeze the clock of the admission limit before the app serves, so that no token refills on a slow machine."""
    assert app.middleware_stack is None
    [admission] = [it for it in (*app.outer, *app.user_middleware) if it.cls is AdmissionMiddleware]
    clock = admission.kwargs["clock"] = Clock()
    return clock


OUTLETS = {"adopted": AdoptableProtocol, "asgi": HttpToolsProtocol}


@pytest.fixture
def outlet() -> str:
    """The outlet of streams. A test can be parametrized with another one."""
    return "adopted"


@pytest.fixture
def server_options() -> dict[str, Any]:
    """Additional uvicorn options."""
    return {}


@pytest.fixture
async def server(app: Any, outlet: str, server_options: dict[str, Any]) -> AsyncIterator[InLoopServer]:
    usual = {"http": OUTLETS[outlet], "port": 0, "log_level": "warning", "timeout_graceful_shutdown": 5}
    usual |= {"ws": BoundedWebSocketProtocol, "ws_per_message_deflate": False}
    server = InLoopServer(uvicorn.Config(app, **(usual | server_options)))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or serving.done(), "the server starts")
    yield server
    hub = app.state.context.hub
    hub.drain()
    server.should_exit = True
    await serving
    assert not hub.channels
    assert not hub.connections
    assert not hub.replays
    assert len(hub.wheel) == 0


@pytest.fixture
async def base_url(server: InLoopServer) -> str:
    scheme = "https" if server.config.is_ssl else "http"
    return f"{scheme}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


@pytest.fixture
async def http(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=base_url, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
async def connect(base_url: str) -> AsyncIterator[Connect]:
    """Opens clients on raw sockets, and closes them after the test."""
    clients: list[Client] = []

    async def connected(**options: Any) -> Client:
        clients.append(await Client.connect(base_url, **options))
        return clients[-1]

    yield connected
    for client in clients:
        client.writer.transport.abort()
        with contextlib.suppress(OSError):
            await client.writer.wait_closed()
