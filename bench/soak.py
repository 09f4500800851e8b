"""A soak test: 2,000 clients connect and disconnect for half an hour while events flow, and each gets each event once.
Exits with 1 if one did not, if the replica's memory at the end is over 5 % above that of minute 5, or if a task, a file
descriptor, a channel or a timer remains after all clients have disconnected."""

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from rich.table import Table

from bench import inside, load, publisher
from bench.clients import Plan
from bench.harness import note, options, read_options, report
from bench.processes import Child, Cores, PrivateRedis, pin

CLIENTS, OPERATIONS = 2_000, 20
EVENTS_A_SECOND = 100.0
LEAVE_A_SECOND = 100.0
OPENED_A_SECOND = 500.0
SAMPLE_S = 30.0
WITHIN_S = 60.0
LEFT = ("tasks", "files", "streams", "channels", "timers")
BASE_AT = 1 / 6
"""Share of the whole time: minute 5 of 30."""
MOST_GROWTH = 1.05
PAYLOAD_BYTES = 180


class Crowd(load.Load):
    """Clients that disconnect and reconnect."""

    def churn(self, seconds: float, leave_a_second: float) -> None:
        """Disconnect clients at random. They reconnect at once with their positions."""
        clients = self.clients
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            client = random.choice(clients.all)
            client.position = client.follower.position()
            clients.open([client], OPENED_A_SECOND)
            clients.run_until(lambda: False, 1 / leave_a_second)


def crowd(pipe: Connection, plan: Plan) -> None:
    """The process of the clients."""
    load.run(pipe, plan, Crowd)


def main() -> int:
    parser = options(__doc__, rounds=1, seconds=1800)
    parser.add_argument("--clients", type=int, default=None, help=f"number of clients ({CLIENTS:,})")
    given = read_options(parser)
    clients = given.clients or (100 if given.quick else CLIENTS)
    cores = Cores.split()
    pin(cores.others)
    with (
        PrivateRedis(cores.others) as redis,
        Child(inside.run, redis.url, cores=cores.measured) as server,
        Child(publisher.run, redis.url, OPERATIONS, PAYLOAD_BYTES, cores=cores.others) as publishing,
    ):
        return soak(redis, server, publishing, given, clients, cores)


def soak(
    redis: PrivateRedis, server: Child, publishing: Child, given: argparse.Namespace, clients: int, cores: Cores
) -> int:
    empty = server.ask("held")
    plan = Plan(server.ask("port"), "/v1/operations/operation-{}/stream", operations=OPERATIONS, reopen=True)
    samples: list[dict[str, int]] = []
    with Child(crowd, plan, cores=cores.others) as public, ThreadPoolExecutor(1) as beside:
        public.ask("open", clients, OPENED_A_SECOND, within_s=WITHIN_S)
        public.ask("await_events", 1, within_s=WITHIN_S)
        began = time.monotonic()
        while (left_s := given.seconds - (time.monotonic() - began)) > 0.5:
            span_s = min(SAMPLE_S, left_s)
            churning = beside.submit(
                public.ask, "churn", span_s, LEAVE_A_SECOND * clients / CLIENTS, within_s=span_s + WITHIN_S
            )
            publishing.ask(span_s, EVENTS_A_SECOND, within_s=span_s + WITHIN_S)
            churning.result()
            samples.append(sample := server.ask("held") | {"at_s": round(time.monotonic() - began)})
            note(f"{sample['at_s']:,} s: {sample['rss_kib']:,} KiB, {sample['streams']:,} streams")
        time.sleep(1)
        got = public.ask("figures")
    return 0 if show(redis, given, samples, got, empty, _left(server, empty)) else 1


def _left(server: Child, empty: dict[str, int]) -> dict[str, int]:
    """Return what remains compared with the start, after a moment, because connections need time to close."""
    for _ in range(20):
        held = server.ask("held")
        left = {name: max(0, held[name] - empty[name]) for name in LEFT}
        if not any(left.values()):
            break
        time.sleep(0.5)
    return left


def show(
    redis: PrivateRedis,
    given: argparse.Namespace,
    samples: list[dict[str, int]],
    got: dict[str, Any],
    empty: dict[str, int],
    left: dict[str, int],
) -> bool:
    base = next(sample for sample in samples if sample["at_s"] >= BASE_AT * samples[-1]["at_s"])
    growth = samples[-1]["rss_kib"] / base["rss_kib"]
    exact = not (got["gaps"] or got["repeats"] or got["failures"])
    table = Table(title=f"{given.seconds / 60:.0f} minutes, {got['events']:,} events delivered")
    rows = {
        "resident at the start, empty": f"{empty['rss_kib']:,} KiB",
        f"resident after {base['at_s'] / 60:.1f} min": f"{base['rss_kib']:,} KiB",
        "resident at the end": f"{samples[-1]['rss_kib']:,} KiB, {100 * (growth - 1):+.1f} %",
        "most resident": f"{max(sample['rss_kib'] for sample in samples):,} KiB",
        "left after all have disconnected": ", ".join(f"{count} {name}" for name, count in left.items()),
        "missed, came twice, permanently rejected": f"{got['gaps']}, {got['repeats']}, {sum(got['failures'].values())}",
    }
    for title in ("", ""):
        table.add_column(title)
    for name, text in rows.items():
        table.add_row(name, text)
    passed = exact and not any(left.values()) and (growth <= MOST_GROWTH or given.quick)
    figures = {"samples": samples, "growth": round(growth, 4), "left": left, "clients": got, "passed": passed}
    report("soak", redis, given, table, figures)
    return passed


if __name__ == "__main__":
    sys.exit(main())
