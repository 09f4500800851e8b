"""sse-starlette carries streams over ASGI, and has no other effect: not on uvicorn, nor on what ends a stream."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from tests.api.conftest import Connect
from tests.api.raw import Client, request
from tests.api.test_operations import create
from tests.servers import DEADLINE_S, Process, eventually, free_port, wait_until


@pytest.fixture
def outlet() -> str:
    return "asgi"


@pytest.mark.parametrize(
    "code",
    [
        "import progress_server.app, progress_server.server.start; import uvicorn;"
        " assert uvicorn.Server.handle_exit.__module__ == 'uvicorn.server'",
        "import uvicorn; own = uvicorn.Server.handle_exit; import progress_server.protocols.for_uvicorn;"
        " assert uvicorn.Server.handle_exit is own",
        "import uvicorn, sse_starlette; theirs = uvicorn.Server.handle_exit; import progress_server.app;"
        " assert theirs.__module__ == 'sse_starlette.sse' and uvicorn.Server.handle_exit is theirs",
    ],
)
def test_importing_us_leaves_uvicorn_as_it_was(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_stream_needs_no_task_that_polls(app: Any, http: httpx.AsyncClient, connect: Connect) -> None:
    await create(http, id="a")
    client = await connect()
    client.send(request())
    await client.opened()
    running = {f"{task.get_name()} {task.get_coro()}" for task in asyncio.all_tasks()}
    assert any("cancel_on_finish" in name for name in running), "sse-starlette does not carry it"
    assert not any("_shutdown_watcher" in name for name in running), running
    app.state.context.hub.drain()
    assert b'{"reason":"draining"}' in await client.body()
    assert uvicorn.Server.handle_exit.__module__ == "uvicorn.server"


@pytest.mark.parametrize("protocols", [(), ("--http", "progress_server.protocols.for_uvicorn:HTTP")])
async def test_a_signal_to_any_server_ends_streams_with_a_word(
    redis_url: str, tmp_path: Path, protocols: tuple[str, ...]
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "--factory", "progress_server.app:create_app", "--port", str(port)]
    with Process([*command, *protocols], tmp_path / "log", os.environ | {"PROGRESS_REDIS_URL": redis_url}) as server:

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/readyz", timeout=DEADLINE_S).status_code == 200
            except httpx.TransportError:
                return False

        await asyncio.to_thread(wait_until, ready, "it is ready", 90)
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http:
            await create(http, id="a")
        client = await Client.connect(url)
        client.send(request())
        await client.opened()
        server.send(signal.SIGTERM)
        assert b'{"reason":"draining"}' in await client.body()
        client.close()
        await eventually(lambda: server.popen is not None and server.popen.poll() is not None, "it ends")
        assert "Traceback" not in server.output()
