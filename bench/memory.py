"""Memory per connection of a server: for 8,000 idle connections, and for 500 of 2,000 that stop reading while events
flow and then continue. Exits with 1 if an idle connection of the broker uses over 2.5 KiB, or if an event was missed or
came twice."""

import argparse
import sys
import time
from collections import defaultdict
from typing import Any, NamedTuple

from rich.table import Table

from bench import contenders
from bench.contest import Delivered, attach, choose, chosen, contest, ground, verdict, warm
from bench.harness import Spread, alternating, note, options, read_options, report
from bench.processes import Cores, PrivateRedis

WARM_CLIENTS = 200
SETTLE_S = 3.0
EVENT_BYTES = 16_384
EVENTS_A_SECOND = 5.0
OURS = "broker"
MOST = 2560
SMALL = {"segment_bytes": 1460, "receive_bytes": 8192}
"""As over a network. Within one machine the kernel would buffer megabytes per client, and no server would notice it."""


class Sizes(NamedTuple):
    idle: int
    clients: int
    slow: int
    settle_s: float


FULL = Sizes(8_000, 2_000, 500, SETTLE_S)
QUICK = Sizes(200, 40, 10, 0.5)


class Slow(NamedTuple):
    """Growth of the server's memory during a slow phase, per slow client."""

    peak_bytes: float
    after_bytes: float
    delivered: Delivered


class Measured(NamedTuple):
    idle_bytes: float
    slow: Slow


def measure(redis: PrivateRedis, cores: Cores, name: str, given: argparse.Namespace, sizes: Sizes) -> Measured:
    found = Measured(idle(redis, cores, name, given.seconds, sizes), slow(redis, cores, name, given.seconds, sizes))
    note(
        f"{name:13} idle: {found.idle_bytes:,.0f} bytes per connection; per slow client: at the peak"
        f" {found.slow.peak_bytes:,.0f}, afterwards {found.slow.after_bytes:,.0f}"
    )
    if found.slow.delivered.wrong:
        note(f"{name}: WRONG: {found.slow.delivered.wrong}")
    return found


def idle(redis: PrivateRedis, cores: Cores, name: str, seconds: float, sizes: Sizes) -> float:
    """Return the bytes per connection.

    Some connections are opened before, and stay, so that one-time costs such as modules and pools do not count.
    """
    with contest(name, redis, cores, min(WARM_CLIENTS, sizes.idle)) as run:
        warm(run, seconds, EVENTS_A_SECOND)
        time.sleep(sizes.settle_s)
        before = run.server.rss_bytes()
        attach(run.server, run.clients, sizes.idle)
        time.sleep(sizes.settle_s)
        return (run.server.rss_bytes() - before) / sizes.idle


def slow(redis: PrivateRedis, cores: Cores, name: str, seconds: float, sizes: Sizes) -> Slow:
    """Let some clients stop reading for most of the publishing time, and wait until they have all events."""
    # Log lines, because a client that is far behind gets only the newest progress.
    with contest(name, redis, cores, sizes.clients, type="log", wire_bytes=EVENT_BYTES, **SMALL) as run:
        warm(run, seconds, EVENTS_A_SECOND)
        before = run.server.rss_bytes()
        run.server.forget_peak()
        run.clients.ask("pause", sizes.slow, 0.9 * seconds)
        delivered = run.deliver(seconds, EVENTS_A_SECOND)
        peak = run.server.peak_bytes()
        time.sleep(sizes.settle_s)
        after = run.server.rss_bytes()
    return Slow((peak - before) / sizes.slow, (after - before) / sizes.slow, delivered)


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=10)
    choose(parser)
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if the bound is exceeded"
    )
    given = read_options(parser)
    names = chosen(given)
    sizes = QUICK if given.quick else FULL
    found: defaultdict[str, list[Measured]] = defaultdict(list)
    with ground() as (redis, cores):
        for name in alternating(names, given.rounds):
            found[name].append(measure(redis, cores, name, given, sizes))
        passed = show(redis, given, found, sizes)
    return verdict(given, (one.slow.delivered for rounds in found.values() for one in rounds), passed=passed)


def show(redis: PrivateRedis, given: argparse.Namespace, found: dict[str, list[Measured]], sizes: Sizes) -> bool:
    table = Table(title="KiB of memory per connection: median (lowest-highest)")
    for title in ("", "idle", "slow, at the peak", "slow, afterwards", "exact"):
        table.add_column(title, justify="left" if title in ("", "exact") else "right", no_wrap=True)
    results: list[dict[str, Any]] = []
    for name, rounds in found.items():
        each = {
            "idle_bytes": [one.idle_bytes for one in rounds],
            "slow_peak_bytes": [one.slow.peak_bytes for one in rounds],
            "slow_after_bytes": [one.slow.after_bytes for one in rounds],
        }
        wrong = [one.slow.delivered.wrong for one in rounds if one.slow.delivered.wrong]
        kib = [Spread.of([value / 1024 for value in values]).text() for values in each.values()]
        table.add_row(name, *kib, f"NO ({len(wrong)})" if wrong else "yes")
        told = {title: Spread.of(values).json() for title, values in each.items()}
        results.append({"contender": name, **told, "wrong": wrong})
    passed = OURS not in found or Spread.of([one.idle_bytes for one in found[OURS]]).median <= MOST
    figures = {
        "idle_connections": sizes.idle,
        "clients": sizes.clients,
        "slow_clients": sizes.slow,
        "event_bytes": EVENT_BYTES,
        "events_a_second": EVENTS_A_SECOND,
        "nginx": contenders.nginx_version(),
        "results": results,
        "bound": MOST,
        "passed": passed,
    }
    report("memory", redis, given, table, figures)
    return passed


if __name__ == "__main__":
    sys.exit(main())
