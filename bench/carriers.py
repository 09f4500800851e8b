"""What carries a worker's reports: Redis itself, or HTTP to a server. Lines a second from one process, the CPU that
worker and server take for them, what publishes over HTTP take of a server, also beside that of another checkout, and
operations that idle over one connection. Exits with 1 if a bound is missed.
"""

import argparse
import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.table import Table

from bench.harness import Spread, alternating, note, options, ratios, read_options, report, settings_for
from bench.processes import Child, Cores, PrivateRedis, pin, serve
from progress_broker.embedded.server_process import ending_with_us
from progress_broker.settings import Settings
from progress_workers import Operation, flush

CARRIERS = ("redis", "http")
LINES_A_FLUSH = 5_000  # below the buffer's limit of 10,000, so that nothing is dropped
FEWEST_LINES_S = 10_000
MOST_BATCH_US = 10.0
"""What an event of a batch of 100 takes of the server."""
OPERATIONS, LEASE_S = 500, 15.0
START_S = 60.0
PARTS = ("api", "broker", "cli", "client", "web", "workers")
"""The folders of a checkout with our packages."""
REQUESTS = {"one event": 300, "100 events": 60, "100 events of a worker": 60}
"""How many requests of each kind are sent in a round."""


class Sent(NamedTuple):
    lines: int
    took_s: float
    worker_s: float


class Worker:
    """The measured process, over one of the carriers."""

    def __init__(self, redis_url: str, url: str | None) -> None:
        self._settings = settings_for(redis_url) if url is None else Settings(url=url, _env_file=None)
        self._held: list[Operation] = []

    def answer(self, question: str, *args: Any) -> Any:
        return getattr(self, question)(*args)

    def send(self, seconds: float) -> Sent:
        with Operation.start("log", lease_s=None, settings=self._settings) as op:
            lines, line = 0, "x" * 200
            began, cpu = time.perf_counter(), time.process_time()
            while time.perf_counter() - began < seconds:
                for _ in range(LINES_A_FLUSH):
                    op.log(line)
                lines += LINES_A_FLUSH
                if not op.flush(30):
                    raise RuntimeError("the lines were not stored within 30 s")
            return Sent(lines, time.perf_counter() - began, time.process_time() - cpu)

    def hold(self) -> float:
        """Start many operations, which say nothing from then on. Return the CPU seconds so far."""
        self._held = [Operation.start("idle", lease_s=LEASE_S, settings=self._settings) for _ in range(OPERATIONS)]
        return time.process_time()

    def release(self) -> float:
        """End them; return the CPU seconds before."""
        cpu = time.process_time()
        for op in self._held:
            op.succeed()
        flush(30)
        return cpu


def worker(pipe: Connection, redis_url: str, url: str | None) -> None:
    serve(pipe, Worker(redis_url, url).answer)


class Server:
    """`progress-broker serve`, as users run it; that of another checkout, if a `tree` is given."""

    def __init__(self, redis_url: str, cores: frozenset[int], tree: Path | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "progress_cli", "serve", "--port", port, "--redis-url", redis_url]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            process_group=0,
            preexec_fn=ending_with_us(),
            cwd=tree,
            env=None if tree is None else os.environ | {"PYTHONPATH": ":".join(f"{tree}/{part}" for part in PARTS)},
        )
        pin(cores, self._process.pid)

    def cpu_s(self) -> float:
        tasks = f"/proc/{self._process.pid}/task"
        return sum(int(open(f"{tasks}/{task}/schedstat").read().split()[0]) for task in os.listdir(tasks)) / 1e9

    def await_ready(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                return
            time.sleep(0.05)
        raise RuntimeError("the server did not start")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Publisher:
    """Publishes to a server, one request after the other, and reads from the kernel what CPU it takes for them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        host, _, port = server.url.removeprefix("http://").partition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self._seq = 0
        self._post("/v1/operations", {"id": "published"})
        began = server.cpu_s()
        time.sleep(1)
        self._idle = server.cpu_s() - began  # a second's

    def us_an_event(self, kind: str, number: int) -> float:
        requests = [self._request(kind) for _ in range(number)]
        began, cpu_s = time.perf_counter(), self._server.cpu_s()
        for path, body in requests:
            self._post(path, body)
        time.sleep(0.05)  # until it has read them from the feed, too
        passed_s = time.perf_counter() - began
        used_s = self._server.cpu_s() - cpu_s - self._idle * passed_s
        return 1e6 * used_s / len(requests) / (1 if kind == "one event" else 100)

    def _request(self, kind: str) -> tuple[str, Any]:
        if kind == "one event":
            return "/v1/operations/published/events", self._event() | {"producer": "p"}
        events = [self._event() for _ in range(100)]
        if kind == "100 events":
            return "/v1/operations/published/events", [event | {"producer": "p"} for event in events]
        return "/v1/workers/publish", [{"operation": "published", "producer": "p", "events": events}]

    def _event(self) -> dict[str, Any]:
        self._seq += 1
        return {"type": "log", "data": {"level": "info", "message": "x" * 200}, "seq": self._seq}

    def _post(self, path: str, value: Any) -> None:
        self._connection.request("POST", path, orjson.dumps(value), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        said = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{path}: {response.status} {said!r}")


def publishing(given: argparse.Namespace, cores: Cores) -> dict[str, dict[str, list[float]]]:
    """Return what an event takes of this server, and of that of another checkout, in turn; by kind of request."""
    tree, rounds = given.against, 1 if given.quick else 3 * given.rounds
    found: dict[str, dict[str, list[float]]] = {kind: defaultdict(list) for kind in REQUESTS}
    with ExitStack() as stack:
        publishers: dict[str, Publisher] = {}
        for name, of in {"now": None, **({"before": tree} if tree is not None else {})}.items():
            redis = stack.enter_context(PrivateRedis(cores.others))
            publishers[name] = Publisher(stack.enter_context(served(redis.url, cores.measured, of)))
        for name in alternating(tuple(publishers), rounds):
            for kind, number in REQUESTS.items():
                if name == "now" or "worker" not in kind:
                    found[kind][name].append(publishers[name].us_an_event(kind, 2 if given.quick else number))
    return found


@contextmanager
def served(redis_url: str, cores: frozenset[int], tree: Path | None = None) -> Iterator[Server]:
    server = Server(redis_url, cores, tree)
    try:
        server.await_ready()
        yield server
    finally:
        server.stop()


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=5)
    parser.add_argument(
        "--hold", type=float, default=60.0, help="how long the idle operations are held, in seconds (60)"
    )
    parser.add_argument("--against", type=Path, help="another checkout, such as `git worktree add` makes")
    parser.add_argument("--no-check", action="store_true", help="do not exit with 1 if a bound is missed")
    given = read_options(parser)
    cores, hold_s = Cores.split(), 2.0 if given.quick else given.hold
    pin(cores.others)
    found: defaultdict[str, list[tuple[Sent, float]]] = defaultdict(list)
    with PrivateRedis(cores.others) as redis, served(redis.url, cores.others) as server:
        for name in alternating(CARRIERS, given.rounds):
            with Child(worker, redis.url, server.url if name == "http" else None, cores=cores.measured) as child:
                before = server.cpu_s()
                sent: Sent = child.ask("send", given.seconds, within_s=given.seconds + 60)
                found[name].append((sent, server.cpu_s() - before))
                note(f"{name}: {sent.lines / sent.took_s:,.0f} lines/s")
        with Child(worker, redis.url, server.url, cores=cores.measured) as child:
            began, before = child.ask("hold", within_s=120), server.cpu_s()
            time.sleep(hold_s)
            stalled = sum(stalls(redis.client).values())
            idle = (child.ask("release", within_s=120) - began) / hold_s, (server.cpu_s() - before) / hold_s
            note(f"{OPERATIONS} operations for {hold_s:g} s: {stalled} stalled; CPU {idle[0]:.1%} and {idle[1]:.1%}")
        table = Table(title="Carriers: median (lowest-highest)")
        for title in ("", "lines/s stored", "us of the worker a line", "us of the server a line", "to Redis"):
            table.add_column(title, justify="left" if not title else "right")
        rates = {name: [sent.lines / sent.took_s for sent, _ in rounds] for name, rounds in found.items()}
        told: dict[str, Any] = {"idle": {"stalled": stalled, "worker": idle[0], "server": idle[1]}}
        for name, rounds in found.items():
            of_worker = Spread.of([1e6 * sent.worker_s / sent.lines for sent, _ in rounds])
            of_server = Spread.of([1e6 * cpu_s / sent.lines for sent, cpu_s in rounds])
            to_redis = ratios(rates[name], rates["redis"])
            rate = Spread.of(rates[name])
            table.add_row(name, rate.text(0), of_worker.text(1), of_server.text(1), f"{to_redis.median:.2f}")
            told[name] = {"lines_s": rate.json(0), "worker_us": of_worker.json(), "server_us": of_server.json()}
        published = publishing(given, cores)
        for kind, by_server in published.items():
            told[kind] = {of: Spread.of(values).json() for of, values in by_server.items()}
            compared = ""
            if "before" in by_server:
                compared = f"; {ratios(by_server['now'], by_server['before']).text(2)} times that of {given.against}"
            note(f"{kind}: {Spread.of(by_server['now']).text(1)} us of the server an event{compared}")
        batch = Spread.of(published["100 events"]["now"])
        missed = [f"more than {MOST_BATCH_US:g} us of the server an event of 100"] * (batch.median > MOST_BATCH_US)
        missed += [f"fewer than {FEWEST_LINES_S:,} lines/s over HTTP"] * (
            Spread.of(rates["http"]).median < FEWEST_LINES_S
        )
        missed += [f"{stalled} idle operations stalled"] * bool(stalled)
        report("carriers", redis, given, table, {"pinned": bool(cores.measured), "results": told, "missed": missed})
    for bound in missed:
        note(f"missed: {bound}")
    return 1 if missed and not (given.no_check or given.quick) else 0


def stalls(client: Any) -> Counter[bytes]:
    """Return how often an operation of the idle ones has stalled, by its key."""
    found: Counter[bytes] = Counter()
    for key in client.scan_iter(match="*:op:*:events", count=1000):
        found[key] += sum(b'"stalled"' in fields[b"d"] for _, fields in client.xrange(key) if fields[b"t"] == b"status")
    return found


if __name__ == "__main__":
    sys.exit(main())
