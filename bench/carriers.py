"""What carries a worker's reports: Redis itself, or HTTP to a server. Lines a second from one process, the CPU that
worker and server take for them, and operations that idle over one connection. Exits with 1 if a bound is missed.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from rich.table import Table

from bench.harness import Spread, alternating, note, options, ratios, read_options, report, settings_for
from bench.processes import Child, Cores, PrivateRedis, pin, serve
from progress_broker.embedded.server_process import ending_with_us
from progress_broker.settings import Settings
from progress_workers import Operation, flush

CARRIERS = ("redis", "http")
LINES_A_FLUSH = 5_000  # below the buffer's limit of 10,000, so that nothing is dropped
FEWEST_LINES_S = 10_000
OPERATIONS, LEASE_S = 500, 15.0
START_S = 60.0


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
    """`progress-broker serve`, as users run it."""

    def __init__(self, redis_url: str, cores: frozenset[int]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "progress_cli", "serve", "--port", port, "--redis-url", redis_url]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=quiet, stdout=quiet, stderr=quiet, process_group=0, preexec_fn=ending_with_us()
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


@contextmanager
def served(redis_url: str, cores: frozenset[int]) -> Iterator[Server]:
    server = Server(redis_url, cores)
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
            compared = ratios(rates[name], rates["redis"])
            rate = Spread.of(rates[name])
            table.add_row(name, rate.text(0), of_worker.text(1), of_server.text(1), f"{compared.median:.2f}")
            told[name] = {"lines_s": rate.json(0), "worker_us": of_worker.json(), "server_us": of_server.json()}
        missed = [f"fewer than {FEWEST_LINES_S:,} lines/s over HTTP"] * (
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
