"""The latency from the publisher to the sockets of 1,000 clients, at 50 events per second. Compares the broker with
Nchan and sse-starlette. Exits with 1 if the broker's 99th percentile is over 1.3 times Nchan's."""

import argparse
import sys
from collections import defaultdict
from functools import partial
from typing import Any

from rich.table import Table

from bench import contenders
from bench.contest import WIRE_BYTES, Delivered, attempts, choose, chosen, contest, ground, quietest, verdict, warm
from bench.harness import Spread, alternating, note, options, ratios, read_options, report
from bench.processes import Cores, PrivateRedis

CLIENTS = 1_000
QUICK_CLIENTS = 50
EVENTS_A_SECOND = 50.0
OURS, RIVAL = "broker", "nchan"
MOST = 1.3
PERCENTILES = ("p50", "p99", "p99.9")


def measure(redis: PrivateRedis, cores: Cores, name: str, given: argparse.Namespace) -> Delivered:
    # Measured to the sockets, so that the speed of the load generator does not count.
    with contest(name, redis, cores, given.clients, arrival=True) as run:
        warm(run, given.seconds, given.rate)
        found = run.deliver(given.seconds, given.rate)
    latencies = ", ".join(f"{percentile} {found.clients['latency_ms'][percentile]:.2f}" for percentile in PERCENTILES)
    note(f"{name:13} {latencies} ms; other processes used {100 * found.others_cpu:.0f} % of a core")
    if found.wrong:
        note(f"{name}: WRONG: {found.wrong}")
    return found


def main() -> int:
    parser = options(__doc__, rounds=5, seconds=10)
    choose(parser)
    attempts(parser)
    parser.add_argument("--rate", type=float, default=EVENTS_A_SECOND, help="events per second (%(default)s)")
    parser.add_argument("--clients", type=int, help=f"number of clients ({CLIENTS:,})")
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if the bound is exceeded"
    )
    given = read_options(parser)
    given.clients = given.clients or (QUICK_CLIENTS if given.quick else CLIENTS)
    names = chosen(given)
    found: defaultdict[str, list[Delivered]] = defaultdict(list)
    with ground() as (redis, cores):
        for name in alternating(names, given.rounds):
            found[name].append(quietest(given, partial(measure, redis, cores, name, given)))
        passed = show(redis, given, found, pinned=bool(cores.measured))
    return verdict(given, (one for rounds in found.values() for one in rounds), passed=passed)


def show(redis: PrivateRedis, given: argparse.Namespace, found: dict[str, list[Delivered]], *, pinned: bool) -> bool:
    table = Table(title=f"ms from publisher to {given.clients:,} clients' sockets: median (lowest-highest)")
    for title in ("", *PERCENTILES, "p99 / Nchan's", "CPU %", "exact"):
        table.add_column(title, justify="left" if title in ("", "exact") else "right", no_wrap=True)
    results: list[dict[str, Any]] = []
    compared: dict[str, Spread] = {}
    for name, rounds in found.items():
        late = {percentile: [one.clients["latency_ms"][percentile] for one in rounds] for percentile in PERCENTILES}
        if RIVAL in found:
            compared[name] = ratios(late["p99"], [one.clients["latency_ms"]["p99"] for one in found[RIVAL]])
        ratio = compared.get(name)
        spreads = {percentile: Spread.of(values) for percentile, values in late.items()}
        cpu = Spread.of([one.server_cpu for one in rounds])
        others = Spread.of([one.others_cpu for one in rounds])
        wrong = [one.wrong for one in rounds if one.wrong]
        table.add_row(
            name,
            *(spread.text() for spread in spreads.values()),
            ratio.text(2) if ratio and name != RIVAL else "",
            f"{100 * cpu.median:.0f}",
            f"NO ({len(wrong)})" if wrong else "yes",
        )
        told = {percentile: spread.json() for percentile, spread in spreads.items()}
        told |= {"server_cpu": cpu.json(), "others_cpu": others.json()}
        results.append({"contender": name, **told, "p99_to_nchan": ratio.json() if ratio else None, "wrong": wrong})
    passed = OURS not in compared or compared[OURS].median <= MOST
    figures = {
        "clients": given.clients,
        "events_a_second": given.rate,
        "wire_bytes": WIRE_BYTES,
        "pinned": pinned,
        "nginx": contenders.nginx_version(),
        "results": results,
        "bound": MOST,
        "passed": passed,
    }
    report("latency", redis, given, table, figures)
    return passed


if __name__ == "__main__":
    sys.exit(main())
