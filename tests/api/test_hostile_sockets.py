"""Whatever a client sends, and wherever it stops, nothing of it remains and the server still serves.

`make fuzz` sends more.
"""

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from tests.api.conftest import InLoopServer
from tests.api.hostile import KINDS, mutated
from tests.api.raw import Client
from tests.api.test_operations import create
from tests.servers import DEADLINE_S, ApiReplica, RealRedis, eventually, wait_until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ROUNDS = int(os.environ.get("PROGRESS_FUZZ_EXAMPLES", "25"))
SEED = os.environ.get("PROGRESS_FUZZ_SEED", "1")
LEAVING = ("close", "reset", "half_close")
ANSWER_S = 0.02
"""How long a client waits for what it may never get."""
REDIS_CONNECTIONS = 20
"""So many more the server may keep, once calls came at once."""


@pytest.fixture
def backend() -> str:
    return "fakeredis"  # connections to it are no files, and so not among those that are counted


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing worse than a warning is logged, and no traceback."""
    caplog.set_level(logging.INFO)
    yield
    bad = [it for it in caplog.get_records("call") if it.levelno >= logging.ERROR or it.exc_info]
    assert not bad, [it.getMessage() for it in bad]


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def attack(url: str, pieces: list[bytes], leave: str) -> bytes:
    """Send the pieces, each after a turn of the event loop. Return the response, as far as it arrives."""
    client = await Client.connect(url)
    answer = b""
    with suppress(ConnectionError, RuntimeError):  # the second is uvloop's error for an aborted connection
        for piece in pieces:
            client.send(piece)
            await asyncio.sleep(0)
        if leave == "half_close" and not client.writer.is_closing():
            with suppress(OSError):
                client.half_close()
        with suppress(TimeoutError):
            answer = await asyncio.wait_for(client.reader.read(1 << 16), ANSWER_S)
    client.reset() if leave == "reset" and not client.writer.is_closing() else client.close()
    with suppress(OSError):
        await client.writer.wait_closed()
    return answer


@pytest.mark.usefixtures("quiet")
class TestNothingIsLeft:
    @pytest.fixture
    async def healthy(
        self, app: Any, server: InLoopServer, http: httpx.AsyncClient
    ) -> Callable[[str], Awaitable[None]]:
        """Call it after an attack, to wait until nothing of that is left."""
        await create(http, id="a")
        await self.recovered(http)
        await http.get("/livez")
        open_files = files()
        connections = len(server.server_state.connections)

        async def healthy(after: str) -> None:
            await self.recovered(http)
            hub = app.state.context.hub
            await eventually(lambda: not hub.channels, f"no stream is left of {after}")
            await eventually(lambda: len(server.server_state.connections) <= connections, f"no connection of {after}")
            await eventually(lambda: not server.server_state.tasks, f"no task is left of {after}")
            await eventually(lambda: files() <= open_files, f"no file is left of {after}")

        return healthy

    async def recovered(self, http: httpx.AsyncClient) -> None:
        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready, "it is ready")

    async def test_of_each_kind(self, base_url: str, healthy: Callable[[str], Awaitable[None]]) -> None:
        for kind, pieces in KINDS.items():
            for leave, answer in zip(
                LEAVING, await asyncio.gather(*(attack(base_url, pieces, leave) for leave in LEAVING)), strict=True
            ):
                assert not answer.startswith(b"HTTP/1.1 5") or b'"unavailable"' in answer, (kind, leave, answer[:500])
            await healthy(f"a client that sends {kind}")

    async def test_of_whatever_it_is(self, base_url: str, healthy: Callable[[str], Awaitable[None]]) -> None:
        chance = random.Random(SEED)
        for _ in range(ROUNDS):
            crowd = (
                attack(base_url, mutated(chance), chance.choice(("close", "reset", "half_close"))) for _ in range(8)
            )
            for answer in await asyncio.gather(*crowd):
                assert not answer.startswith(b"HTTP/1.1 500"), answer[:500]
        await healthy("a crowd")


def memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def slow_loris(port: int, pieces: list[bytes], connections: int) -> list[socket.socket]:
    """Open connections that send the beginning of a request and stay open."""
    held = []
    for number in range(connections):
        one = socket.create_connection(("127.0.0.1", port), timeout=5)
        one.settimeout(0.2)
        with suppress(OSError):
            one.sendall(b"".join(pieces)[: 1 << (number % 18)])
        held.append(one)
    return held


def test_a_server_gives_back_what_slow_ones_took(redis_server: RealRedis, tmp_path: Path) -> None:
    most = 16 * 1024 * 1024
    with ApiReplica(redis_server.url, tmp_path / "log", drain_s=1) as replica:
        replica.await_ready()
        httpx.post(f"{replica.url}/v1/operations", json={"id": "a"}, timeout=DEADLINE_S)
        folder = Path(f"/proc/{replica.pid}/fd")
        sizes = []
        for _ in range(3):  # the first run allocates what stays
            files_before = len(list(folder.iterdir()))
            held = [one for pieces in KINDS.values() if pieces for one in slow_loris(replica.port, pieces, 10)]
            assert httpx.get(f"{replica.url}/readyz", timeout=60).status_code == 200, "they don't keep others out"
            for one in held:
                one.close()
            most_files = files_before + REDIS_CONNECTIONS
            wait_until(lambda most=most_files: len(list(folder.iterdir())) <= most, "no client's file is left")
            sizes.append(memory_bytes(replica.pid))
        assert sizes[-1] - sizes[0] < most, sizes
        assert replica.popen is not None
        assert replica.popen.poll() is None
        for complaint in ("Traceback", "ERROR"):
            assert complaint not in replica.output(), replica.output()[-4000:]
