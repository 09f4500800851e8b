"""Pauses of a replica by the garbage collector while 16,000 clients connect: with the server's settings (start-up
objects frozen, rare collections) and with Python's defaults."""

import argparse
import sys
from typing import Any, get_args

from rich.table import Table

from bench import inside, load
from bench.clients import Plan
from bench.harness import Spread, alternating, note, options, read_options, report
from bench.inside import Collector
from bench.processes import Child, Cores, PrivateRedis, pin
from bench.publisher import Publisher

CLIENTS = 16_000
OPENED_A_SECOND = 2_000.0
WITHIN_S = 120.0


def measure(redis: PrivateRedis, cores: Cores, collector: Collector, clients: int) -> dict[str, Any]:
    with Child(inside.run, redis.url, collector, 1_000_000, cores=cores.measured) as replica:
        plan = Plan(replica.ask("port"), "/v1/operations/operation-{}/stream")
        with Child(load.run, plan, cores=cores.others) as crowd:
            replica.ask("mark")
            crowd.ask("open", clients, OPENED_A_SECOND, within_s=WITHIN_S)
            crowd.ask("await_events", 1, within_s=WITHIN_S)
            found: dict[str, Any] = replica.ask("pauses")
    note(f"{collector}: {found['count']} collections, longest pause {1000 * found['longest_s']:.1f} ms")
    return found


def main() -> int:
    given = read_options(options(__doc__, rounds=3, seconds=1))
    clients = 200 if given.quick else CLIENTS
    cores = Cores.split()
    pin(cores.others)
    found: dict[Collector, list[dict[str, Any]]] = {name: [] for name in get_args(Collector)}
    with PrivateRedis(cores.others) as redis:
        Publisher(redis.url, 1, 100).create()
        for name in alternating(get_args(Collector), given.rounds):
            found[name].append(measure(redis, cores, name, clients))
        show(redis, given, found, clients)
    return 0


def show(
    redis: PrivateRedis, given: argparse.Namespace, found: dict[Collector, list[dict[str, Any]]], clients: int
) -> None:
    table = Table(title=f"While {clients:,} clients connect")
    for title in ("collector", "longest pause, ms", "all pauses, ms", "collections by generation"):
        table.add_column(title, justify="right")
    results = []
    for name, rounds in found.items():
        longest = Spread.of([1000 * one["longest_s"] for one in rounds])
        total = Spread.of([1000 * one["total_s"] for one in rounds])
        table.add_row(name, longest.text(), total.text(), " ".join(map(str, rounds[-1]["count"])))
        results.append({"collector": name, "longest_ms": longest.json(), "total_ms": total.json()})
    report("collector", redis, given, table, {"clients": clients, "results": results})


if __name__ == "__main__":
    sys.exit(main())
