"""A replica as `serve` runs it, in a process that reports its open resources and its garbage collector pauses."""

import asyncio
import gc
import os
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import uvicorn
import uvloop

from bench.answering import serve_and_answer
from bench.harness import settings_for
from progress_broker.operations.store import Store
from progress_server.app import create_app
from progress_server.server.server import Server
from progress_server.server.sockets import listen

Collector = Literal["ours", "python's"]


class PlainServer(Server):
    """A server that does not change the garbage collector's settings."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await uvicorn.Server.startup(self, sockets)


class Pauses:
    """The pauses of the garbage collector, by generation, since `mark`."""

    def __init__(self) -> None:
        self.mark()
        gc.callbacks.append(self._note)

    def mark(self) -> None:
        self.count, self.total_s, self.longest_s = [0, 0, 0], 0.0, 0.0

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        took_s = time.perf_counter() - self._began
        self.count[info["generation"]] += 1
        self.total_s += took_s
        self.longest_s = max(self.longest_s, took_s)


def run(pipe: Connection, url: str, collector: Collector = "ours", handshakes_per_s: int = 1_000) -> None:
    """The process of the replica."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(pipe, url, collector, handshakes_per_s))


async def _run(pipe: Connection, url: str, collector: Collector, handshakes_per_s: int) -> None:
    chosen = {"port": 0, "log_level": "error", "handshakes_per_s": handshakes_per_s}
    settings = settings_for(url).model_copy(update=chosen)
    pauses = Pauses()
    async with await Store.open(settings) as store:
        with listen(settings) as listener:
            app = create_app(settings, store)
            server = (Server if collector == "ours" else PlainServer)(app, settings)
            await serve_and_answer(
                pipe, app, server, listener, lambda question: _answer(question, app, pauses, listener)
            )


def _answer(question: str, app: Any, pauses: Pauses, listener: socket.socket) -> Any:
    match question:
        case "port":
            return listener.getsockname()[1]
        case "held":
            return _held(app)
        case "cpu_s":
            return time.process_time()
        case "mark":
            return pauses.mark()
        case "pauses":
            return {"count": pauses.count, "total_s": pauses.total_s, "longest_s": pauses.longest_s}
        case _:
            raise ValueError(question)


def _held(app: Any) -> dict[str, int]:
    hub = app.state.context.hub
    gc.collect()
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return {
        "rss_kib": next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")),
        "tasks": len(asyncio.all_tasks()),
        "files": _files(),
        "streams": len(hub),
        "channels": len(hub.channels),
        "timers": len(hub.wheel),
    }


def _files() -> int:
    """Return the number of open files, without connections to Redis, which stay in the pool."""
    lines = Path("/proc/self/net/unix").read_text("ascii").splitlines()[1:]
    unix = {f"socket:[{line.split()[6]}]" for line in lines}
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of this listing itself
            count += os.readlink(file) not in unix
    return count
