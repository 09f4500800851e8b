"""Deliveries per CPU second of the server, if the events of one operation go to 100, 1,000 and 8,000 clients, and ten
at a time to 1,000. Compares the broker with sse-starlette and Nchan. Exits with 1 if the broker delivers less than the
bounds, or if a client missed an event or got it twice."""

import argparse
import sys
from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

from rich.table import Table

from bench import contenders
from bench.contest import WIRE_BYTES, Delivered, attempts, choose, chosen, contest, ground, quietest, verdict, warm
from bench.harness import Spread, alternating, note, options, ratios, read_options, report
from bench.processes import Cores, PrivateRedis


class Case(NamedTuple):
    clients: int
    together: int = 1

    def text(self) -> str:
        return f"{self.clients:,}" if self.together == 1 else f"{self.clients:,} x {self.together}"


class Bound(NamedTuple):
    case: Case
    rival: str
    least: float


CASES = (Case(100), Case(1_000), Case(8_000), Case(1_000, 10))
QUICK = (Case(50, 10),)
OURS = "broker"
BOUNDS = (
    Bound(Case(1_000), "sse-starlette", 5.0),
    Bound(Case(1_000), "nchan", 0.6),
    Bound(Case(1_000, 10), "nchan", 3.0),
)
SATURATED = 0.9
"""Share of a core. Above it events wait for the server and share writes, so the cost per event looks too low."""

Key = tuple[str, Case]


def measure(redis: PrivateRedis, cores: Cores, key: Key, given: argparse.Namespace) -> Delivered:
    name, case = key
    deliveries_a_second = given.rate or contenders.KINDS[name].deliveries_a_second
    events_a_second = deliveries_a_second / case.clients
    with contest(name, redis, cores, case.clients) as run:
        warm(run, given.seconds, events_a_second, case.together)
        found = run.deliver(given.seconds, events_a_second, case.together)
    note(
        f"{name:13} {case.text():20} {found.deliveries / found.cpu_s:9,.0f} per CPU second,"
        f" {100 * found.server_cpu:.0f} % of its core; other processes used {100 * found.others_cpu:.0f} % of a core"
    )
    if found.wrong:
        note(f"{name}, {case.text()}: WRONG: {found.wrong}")
    return found


def main() -> int:
    parser = options(__doc__, rounds=5, seconds=4)
    choose(parser)
    attempts(parser)
    parser.add_argument(
        "--rate", type=float, help="deliveries per second in total (60,000; 15,000 for slower contenders)"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if a bound is missed"
    )
    given = read_options(parser)
    names = chosen(given)
    cases = QUICK if given.quick else CASES
    found: defaultdict[Key, list[Delivered]] = defaultdict(list)
    with ground() as (redis, cores):
        for key in alternating([(name, case) for case in cases for name in names], given.rounds):
            found[key].append(quietest(given, partial(measure, redis, cores, key, given)))
        passed = show(redis, given, found, pinned=bool(cores.measured))
    return verdict(given, (one for rounds in found.values() for one in rounds), passed=passed)


def show(redis: PrivateRedis, given: argparse.Namespace, found: dict[Key, list[Delivered]], *, pinned: bool) -> bool:
    table = Table(title="Thousands of deliveries per CPU second of the server: median (lowest-highest)")
    for title in ("clients", "", "thousands", "broker / it", "CPU %", "bytes", "per read", "Redis %", "exact"):
        table.add_column(title, justify="left" if title in ("", "exact") else "right", no_wrap=True)
    results, compared = [], dict[Key, Spread]()
    for (name, case), rounds in found.items():
        each = [one.deliveries / one.cpu_s for one in rounds]
        ours = found.get((OURS, case))
        if ours is not None and name != OURS:
            compared[name, case] = ratios([one.deliveries / one.cpu_s for one in ours], each)
        table.add_row(*_row(name, case, rounds, compared.get((name, case))))
        results.append(_told(name, case, rounds, compared.get((name, case))))
    checks = [
        {"clients": case.text(), "to": rival, "least": least, "ratio": compared[rival, case].json()}
        for case, rival, least in BOUNDS
        if (rival, case) in compared
    ]
    passed = all(compared[rival, case].median >= least for case, rival, least in BOUNDS if (rival, case) in compared)
    figures = {
        "wire_bytes": WIRE_BYTES,
        "pinned": pinned,
        "nginx": contenders.nginx_version(),
        "results": results,
        "bounds": checks,
        "passed": passed,
    }
    report("fanout", redis, given, table, figures)
    return passed


def _row(name: str, case: Case, rounds: list[Delivered], ratio: Spread | None) -> list[str]:
    cpu = Spread.of([one.server_cpu for one in rounds])
    wrong = [one.wrong for one in rounds if one.wrong]
    return [
        case.text(),
        name,
        Spread.of([one.deliveries / one.cpu_s / 1000 for one in rounds]).text(0),
        ratio.text(2) if ratio else "",
        f"{100 * cpu.median:.0f}{'!' if cpu.high > SATURATED else ''}",
        f"{rounds[0].clients['bytes_per_event']:.0f}",
        f"{Spread.of([one.clients['events_per_read'] for one in rounds]).median:.1f}",
        f"{Spread.of([100 * one.redis_cpu_s / one.seconds for one in rounds]).median:.0f}",
        f"NO ({len(wrong)})" if wrong else "yes",
    ]


def _told(name: str, case: Case, rounds: list[Delivered], ratio: Spread | None) -> dict[str, Any]:
    spreads = {
        "deliveries_a_cpu_second": [one.deliveries / one.cpu_s for one in rounds],
        "deliveries_a_second": [one.deliveries / one.seconds for one in rounds],
        "server_cpu": [one.server_cpu for one in rounds],
        "redis_cpu": [one.redis_cpu_s / one.seconds for one in rounds],
        "load_us_a_delivery": [one.clients["cpu_us_per_event"] for one in rounds],
        "events_a_read": [one.clients["events_per_read"] for one in rounds],
        "bytes_an_event": [one.clients["bytes_per_event"] for one in rounds],
        "others_cpu": [one.others_cpu for one in rounds],
    }
    return {
        "contender": name,
        "clients": case.clients,
        "together": case.together,
        **{title: Spread.of(values).json() for title, values in spreads.items()},
        "ours_to_it": ratio.json() if ratio else None,
        "wrong": [one.wrong for one in rounds if one.wrong],
    }


if __name__ == "__main__":
    sys.exit(main())
