"""The cost of an event for a replica that watches 100 to 100,000 operations, through the feeds of the lanes and through
XREAD over the operations' own streams; and the cost if 1, 2 or 4 replicas watch all operations. Exits with 1 if, with
feeds and 10,000 operations, an event costs over 20 us of CPU, or over 1.2 times its cost with 100 operations."""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from rich.table import Table

from bench import publisher, replicas
from bench.harness import Spread, alternating, note, options, ratios, read_options, report
from bench.processes import Child, Cores, PrivateRedis, busy_s, pin

EVENTS_A_SECOND = 10_000
PAYLOAD_BYTES = 300
WARM_S = 5.0  # the hub's sweep interval; after it, no operation counts as silent only because it is newly subscribed
WARM_DRAIN_S = 30.0
DRAIN_S = 5.0
READY_S = 300.0  # time to create 100,000 operations, or to subscribe to them
MOST_US = 20.0
MOST_GROWTH = 1.2
NOISY = 0.2  # cores used by other processes; above this a measurement is repeated, and the quietest one counts


class Case(NamedTuple):
    variant: str
    operations: int
    hubs: int = 1


FEWEST, BOUND = Case("feed", 100), Case("feed", 10_000)
SCALES = [Case(variant, operations) for operations in (100, 1_000, 10_000) for variant in replicas.VARIANTS]
MOST = Case("feed", 100_000)  # only once: creating and watching so many takes longer than the rest of a round
HUBS = [Case("feed", 1_000, hubs) for hubs in (2, 4)]  # the case of one replica is measured above


class Measured(NamedTuple):
    us_per_event: float
    replica_cpu: float
    redis_us_per_event: float
    in_time: float
    delivered: float
    p50_ms: float
    p99_ms: float
    events_a_second: float
    events_a_read: float
    others_cpu: float


def measure_quietly(redis: PrivateRedis, cores: Cores, case: Case, given: argparse.Namespace) -> Measured:
    tries: list[Measured] = []
    while not tries or (len(tries) < given.attempts and tries[-1].others_cpu > NOISY):
        measured = measure(redis, cores, case, given)
        tries.append(measured)
        note(
            f"{case.variant:5} {case.operations:7,} operations, replicas: {case.hubs}; {measured.us_per_event:6.1f} us"
            f" of CPU per event, {100 * measured.delivered:.1f} % of {measured.events_a_second:,.0f}/s delivered;"
            f" other processes used {100 * measured.others_cpu:.0f} % of a core"
        )
    return min(tries, key=lambda one: one.others_cpu)


def measure(redis: PrivateRedis, cores: Cores, case: Case, given: argparse.Namespace) -> Measured:
    redis.client.flushall()
    arguments = (redis.url, case.operations, PAYLOAD_BYTES)
    with ExitStack() as children:
        publishing = children.enter_context(
            Child(publisher.run, *arguments, cores=cores.others, ready_s=READY_S),
        )
        names = publisher.names(case.operations)
        hubs = [
            children.enter_context(
                Child(replicas.run, case.variant, redis.url, names, cores=cores.measured, ready_s=READY_S)
            )
            for _ in range(case.hubs)
        ]
        warm = min(WARM_S, given.seconds) if given.quick else WARM_S
        published, _, _ = publishing.ask(warm, given.rate)
        late = [published - drained(hub, published, WARM_DRAIN_S) for hub in hubs]

        for hub in hubs:
            hub.ask("mark")
        redis_s, all_s, reads = redis.cpu_s(), busy_s(), redis.calls("xread")
        published, seconds, publisher_s = publishing.ask(given.seconds, given.rate)
        readings: list[dict[str, float]] = [hub.ask("read") for hub in hubs]
        redis_s, all_s, reads = redis.cpu_s() - redis_s, busy_s() - all_s, redis.calls("xread") - reads
        delivered = [
            drained(hub, published + before, DRAIN_S) / (published + before)
            for hub, before in zip(hubs, late, strict=True)
        ]

    def mean(name: str) -> float:
        return sum(reading[name] for reading in readings) / case.hubs

    return Measured(
        us_per_event=1e6 * mean("cpu_s") / max(1.0, mean("delivered")),
        replica_cpu=mean("cpu_s") / seconds,
        redis_us_per_event=1e6 * redis_s / published,
        in_time=mean("delivered") / (published + sum(late) / case.hubs),
        delivered=min(delivered),
        p50_ms=mean("p50_ms"),
        p99_ms=max(reading["p99_ms"] for reading in readings),
        events_a_second=published / seconds,
        events_a_read=case.hubs * mean("delivered") / max(1, reads),
        others_cpu=max(0.0, all_s - redis_s - publisher_s - case.hubs * mean("cpu_s")) / seconds,
    )


def drained(replica: Child, published: int, within_s: float) -> int:
    end = time.monotonic() + within_s
    while True:
        delivered: int = replica.ask("delivered")
        if delivered >= published or time.monotonic() > end:
            return delivered
        time.sleep(0.05)


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=4)
    parser.add_argument("--rate", type=float, default=EVENTS_A_SECOND, help="events per second in total (%(default)s)")
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if a bound is exceeded"
    )
    parser.add_argument(
        "--attempts", type=int, default=1, help="attempts if other processes use the machine (%(default)s)"
    )
    given = read_options(parser)
    cores = Cores.split()
    pin(cores.others)
    found: defaultdict[Case, list[Measured]] = defaultdict(list)
    with PrivateRedis(cores.others) as redis:
        for case in [*alternating([*SCALES, *HUBS], given.rounds), *([] if given.quick else [MOST])]:
            found[case].append(measure_quietly(redis, cores, case, given))
        passed = show(redis, given, found, pinned=bool(cores.measured))
    return 0 if passed or given.no_check or given.quick else 1


def show(redis: PrivateRedis, given: argparse.Namespace, found: dict[Case, list[Measured]], *, pinned: bool) -> bool:
    table = Table(title=f"CPU of a replica at {given.rate:,.0f} events/s in total: median (lowest-highest)")
    titles = ["", "watched", "hubs", "us/event", "x of 100", "CPU %", "Redis us"]
    titles += ["rate", "per read", "delivered %", "p50 ms", "p99 ms"]
    for title in titles:
        table.add_column(title, justify="right" if title else "left", no_wrap=title == "us/event")
    results = []
    for case in sorted(found):
        growth = ratio(found, case, Case(case.variant, FEWEST.operations))
        spreads = {name: Spread.of([float(getattr(one, name)) for one in found[case]]) for name in Measured._fields}
        table.add_row(*cells(case, spreads, growth))
        told: dict[str, Any] = {name: spread.json() for name, spread in spreads.items()}
        results.append({**case._asdict(), **told, "ratio_to_fewest": growth.json()})
    us, growth = Spread.of([one.us_per_event for one in found[BOUND]]), ratio(found, BOUND, FEWEST)
    passed = us.median <= MOST_US and growth.median <= MOST_GROWTH
    figures = {
        "events_a_second": given.rate,
        "payload_bytes": PAYLOAD_BYTES,
        "xread_connections": replicas.CONNECTIONS,
        "pinned": pinned,
        "results": results,
        "bounds": {"us_per_event": MOST_US, "growth": MOST_GROWTH},
        "reached": {"us_per_event": us.json(), "growth": growth.json()},
        "passed": passed,
    }
    report("scale", redis, given, table, figures)
    return passed


def cells(case: Case, spreads: dict[str, Spread], growth: Spread) -> Sequence[str]:
    return (
        case.variant,
        f"{case.operations:,}",
        f"{case.hubs}",
        spreads["us_per_event"].text(),
        f"{growth.median:.2f}",
        f"{100 * spreads['replica_cpu'].median:.0f}",
        f"{spreads['redis_us_per_event'].median:.0f}",
        f"{spreads['events_a_second'].median:,.0f}",
        f"{spreads['events_a_read'].median:.1f}",
        f"{100 * spreads['delivered'].median:.1f}",
        f"{spreads['p50_ms'].median:.1f}",
        f"{spreads['p99_ms'].median:.1f}",
    )


def ratio(found: dict[Case, list[Measured]], over: Case, under: Case) -> Spread:
    """The cost of an event in one case relative to another, within each round that measured both."""
    pairs = list(zip(found[over], found[under], strict=False))
    return ratios([one.us_per_event for one, _ in pairs], [one.us_per_event for _, one in pairs])


if __name__ == "__main__":
    sys.exit(main())
