"""The cost of limits: CPU of a call and of opening a stream, with all limits set (and never reached) relative to none.
Exits with 1 if a call costs over 1.25 times as much, or a stream over 1.5 times."""

import asyncio
import http.client
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import uvloop
from rich.table import Table
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.answering import serve_and_answer
from bench.harness import Spread, alternating, note, options, ratios, read_options, report, settings_for
from bench.processes import Child, Cores, PrivateRedis, pin
from bench.publisher import Publisher
from progress_broker.operations.store import Store
from progress_server.app import create_app
from progress_server.server.server import Server
from progress_server.server.sockets import listen

CALLS, STREAMS = 4_000, 1_000
NAMES = 50
VARIANTS: dict[str, dict[str, int]] = {
    "none": {"max_streams_per_principal": 0},
    "all": {
        "max_streams_per_principal": 1_000_000,
        "max_streams_per_address": 1_000_000,
        "requests_per_s": 1_000_000,
        "sent_bytes_per_s": 1_000_000_000,
    },
}
MOST_CALL, MOST_STREAM = 1.25, 1.5


class Named:
    """Middleware in place of authentication, almost without cost: it assigns principals in turn."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._number = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self._number += 1
            found: Any = scope["state"].get("principal")
            name = f"principal-{self._number % NAMES}"
            scope["state"]["principal"] = SimpleNamespace(name=name) if found is None else replace(found, name=name)
        await self._app(scope, receive, send)


def run(pipe: Connection, url: str, chosen: dict[str, int]) -> None:
    """The process of a replica, which reports its port and its CPU time."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(pipe, url, chosen))


async def _run(pipe: Connection, url: str, chosen: dict[str, int]) -> None:
    settings = settings_for(url).model_copy(
        update={"port": 0, "log_level": "error", "handshakes_per_s": 1_000_000, **chosen}
    )
    async with await Store.open(settings) as store:
        with listen(settings) as listener:
            app = create_app(settings, store)
            at = next(i for i, it in enumerate(app.user_middleware) if "limiter" in it.kwargs)
            app.user_middleware.insert(at, Middleware(Named))

            def answer(question: str) -> float:
                port: int = listener.getsockname()[1]
                return port if question == "port" else time.process_time()

            await serve_and_answer(pipe, app, Server(app, settings), listener, answer)


def call(port: int, times: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(times):
        connection.request("GET", "/v1/operations/operation-0")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"a call was rejected: {answer.status}")
    connection.close()


def open_streams(port: int, times: int) -> None:
    ask = b"GET /v1/operations/operation-0/stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(ask)
            got = b""
            while b"event: snapshot" not in got:
                some = client.recv(65_536)
                if not some:
                    raise SystemExit(f"a stream was rejected: {got!r}")
                got += some


def measure(redis: PrivateRedis, cores: Cores, variant: str, scale: float) -> dict[str, float]:
    """Return the CPU of the replica, in microseconds."""
    found = {}
    with Child(run, redis.url, VARIANTS[variant], cores=cores.measured) as replica:
        port: Any = replica.ask("port")
        for name, do, times in (("call", call, CALLS), ("stream", open_streams, STREAMS)):
            times = max(20, round(times * scale))
            do(port, times // 10)  # warm-up
            begun = replica.ask("cpu")
            do(port, times)
            found[name] = 1e6 * (replica.ask("cpu") - begun) / times
    note(f"limits: {variant:5} a call {found['call']:.0f} us, a stream {found['stream']:.0f} us")
    return found


def main() -> int:
    parser = options(__doc__, rounds=7, seconds=1)
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if a bound is exceeded"
    )
    given = read_options(parser)
    cores = Cores.split()
    pin(cores.others)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with PrivateRedis(cores.others) as redis:
        Publisher(redis.url, 1, 100).create()
        for name in alternating(list(VARIANTS), given.rounds):
            with suppress(BrokenPipeError):
                found[name].append(measure(redis, cores, name, 0.05 if given.quick else 1))
        table = Table(title="CPU of a replica, in microseconds")
        for title in ("", "no limits", "all limits", "all / none"):
            table.add_column(title, justify="right")
        results, passed = [], True
        for what, most in (("call", MOST_CALL), ("stream", MOST_STREAM)):
            off, on = ([one[what] for one in found[name]] for name in ("none", "all"))
            ratio = ratios(on, off)
            passed &= ratio.median <= most
            table.add_row(what, Spread.of(off).text(), Spread.of(on).text(), ratio.text(2))
            results.append({"what": what, "none_us": Spread.of(off).json(), "all_us": Spread.of(on).json()})
            results[-1]["ratio"] = ratio.json()
        bounds = {"call": MOST_CALL, "stream": MOST_STREAM}
        report("limits", redis, given, table, {"results": results, "bounds": bounds, "passed": passed})
    return 0 if passed or given.quick or given.no_check else 1


if __name__ == "__main__":
    sys.exit(main())
