"""The cost of an event with a Cluster of three masters, compared with a single server: for a replica that watches all
operations, for Redis, and for who publishes. Exits with 1 if an event costs a replica over 1.3 times the CPU of that
with a single server, if the median latency of either is over 10 ms, or if it costs a master over 1.1 times the CPU of a
single server that gets as many events a second as that master."""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from rich.table import Table

from bench import publisher, replicas, routed_publisher
from bench.harness import Spread, alternating, note, options, ratios, read_options, report
from bench.private_cluster import PrivateCluster
from bench.processes import Child, Cores, PrivateRedis, busy_s, free_port, pin
from bench.scale import DRAIN_S, PAYLOAD_BYTES, READY_S, WARM_DRAIN_S, WARM_S, drained
from progress_broker.routing.slots import slot_of
from progress_broker.storage.keys import Keyspace

RATES = (2_000, 5_000)
OPERATIONS, MASTERS, LANES = 200, 3, 16
MOST_CPU, MOST_P50_MS, MOST_REDIS = 1.3, 10.0, 1.1


class Case(NamedTuple):
    """A single server or a Cluster at a rate; or a single server at the rate of one master of that Cluster."""

    rate: int
    kind: str
    master: int = -1

    @property
    def name(self) -> str:
        return self.kind if self.master < 0 else f"single, as master {self.master + 1}"


class Measured(NamedTuple):
    """Microseconds are of CPU for an event. `masters_us` has those of each server of Redis."""

    us_per_event: float
    p50_ms: float
    p99_ms: float
    delivered: float
    publisher_us: float
    masters_us: tuple[float, ...]
    events_a_second: float
    others_cpu: float


class Bench:
    """Both kinds of Redis. Only one of them has something to do at a time."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self.single = PrivateRedis(cores.others, free_port())
        self.cluster = PrivateCluster(cores.others, MASTERS)

    def __enter__(self) -> "Bench":
        with ExitStack() as stack:
            stack.enter_context(self.single)
            stack.enter_context(self.cluster)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def shares(self) -> list[float]:
        """Return which part of all events each master of the Cluster gets."""
        keyspace = Keyspace("pb", LANES)
        slots = [slot_of(keyspace.operation(name).lane.feed) for name in publisher.names(OPERATIONS)]
        counted = Counter(self.cluster.place_of(slot) for slot in slots)
        return [counted[place] / OPERATIONS for place in range(MASTERS)]

    def measure(self, case: Case, given: argparse.Namespace) -> Measured:
        servers = self.cluster.nodes if case.kind == "cluster" else [self.single]
        url = self.cluster.url if case.kind == "cluster" else self.single.url
        shares = self.shares() if case.kind == "cluster" else [1.0]
        rate = case.rate if case.master < 0 else case.rate * self.shares()[case.master]
        for server in servers:
            server.client.flushall()
        with ExitStack() as children:
            arguments = (url, OPERATIONS, PAYLOAD_BYTES)
            publishing = children.enter_context(
                Child(routed_publisher.run, *arguments, cores=self._cores.others, ready_s=READY_S)
            )
            watching = ("feed", url, publisher.names(OPERATIONS))
            hub = children.enter_context(Child(replicas.run, *watching, cores=self._cores.measured, ready_s=READY_S))
            published, _, _ = publishing.ask(min(WARM_S, given.seconds) if given.quick else WARM_S, rate)
            late = published - drained(hub, published, WARM_DRAIN_S)

            hub.ask("mark")
            all_s, redis_s = busy_s(), [server.cpu_s() for server in servers]
            published, seconds, publisher_s = publishing.ask(given.seconds, rate)
            reading = hub.ask("read")
            redis_s = [server.cpu_s() - before for server, before in zip(servers, redis_s, strict=True)]
            all_s = busy_s() - all_s
            delivered = drained(hub, published + late, DRAIN_S) / (published + late)
        return Measured(
            us_per_event=1e6 * reading["cpu_s"] / max(1, reading["delivered"]),
            p50_ms=reading["p50_ms"],
            p99_ms=reading["p99_ms"],
            delivered=delivered,
            publisher_us=1e6 * publisher_s / published,
            masters_us=tuple(1e6 * used / (published * share) for used, share in zip(redis_s, shares, strict=True)),
            events_a_second=published / seconds,
            others_cpu=max(0.0, all_s - sum(redis_s) - publisher_s - reading["cpu_s"]) / seconds,
        )


def cases(*, quick: bool) -> Iterator[Case]:
    for rate in RATES[:1] if quick else RATES:
        yield from (Case(rate, "single"), Case(rate, "cluster"))
        yield from (Case(rate, "single", master) for master in range(0 if quick else MASTERS))


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=6)
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if a bound is exceeded"
    )
    given = read_options(parser)
    cores = Cores.split()
    pin(cores.others)
    found: defaultdict[Case, list[Measured]] = defaultdict(list)
    with Bench(cores) as bench:
        for case in alternating(list(cases(quick=given.quick)), given.rounds):
            measured = bench.measure(case, given)
            found[case].append(measured)
            note(
                f"{case.name} at {measured.events_a_second:,.0f}/s: {measured.us_per_event:.1f} us an event,"
                f" p50 {measured.p50_ms:.1f} ms, Redis {sum(measured.masters_us) / len(measured.masters_us):.0f} us;"
                f" other processes used {100 * measured.others_cpu:.0f} % of a core"
            )
        passed = show(bench, given, found, pinned=bool(cores.measured))
    return 0 if passed or given.no_check or given.quick else 1


def show(bench: Bench, given: argparse.Namespace, found: dict[Case, list[Measured]], *, pinned: bool) -> bool:
    table = Table(title="CPU of an event, us: median (lowest-highest)")
    titles = ["", "events/s", "replica", "x of single", "p50 ms", "p99 ms", "Redis", "x at its rate"]
    for title in [*titles, "publisher", "delivered %"]:
        table.add_column(
            title, justify="right" if title else "left", no_wrap=title in ("replica", "publisher", "Redis")
        )
    results, passed = [], True
    for case, measured in found.items():
        cpu = ratios(values(measured, "us_per_event"), values(found[Case(case.rate, "single")], "us_per_event"))
        masters = [
            Spread.of([one.masters_us[place] for one in measured]) for place in range(len(measured[0].masters_us))
        ]
        compared = range(MASTERS) if case.kind == "cluster" and not given.quick else range(0)
        of_single = [to_single(found, case.rate, place) for place in compared]
        spreads = {name: Spread.of(values(measured, name)) for name in Measured._fields if name != "masters_us"}
        table.add_row(
            case.name,
            f"{spreads['events_a_second'].median:,.0f}",
            spreads["us_per_event"].text(),
            f"{cpu.median:.2f}" if case.master < 0 else "",
            f"{spreads['p50_ms'].median:.1f}",
            f"{spreads['p99_ms'].median:.1f}",
            " ".join(f"{master.median:.0f}" for master in masters),
            " ".join(f"{ratio.median:.2f}" for ratio in of_single),
            f"{spreads['publisher_us'].median:.1f}",
            f"{100 * spreads['delivered'].median:.1f}",
        )
        told: dict[str, Any] = {name: spread.json() for name, spread in spreads.items()}
        told |= {"masters_us": [master.json() for master in masters]}
        told |= {"ratio_to_single": cpu.json(), "masters_to_single": [ratio.json() for ratio in of_single]}
        results.append({**case._asdict(), **told})
        if case.master < 0:
            passed &= cpu.median <= MOST_CPU and spreads["p50_ms"].median <= MOST_P50_MS
            passed &= all(ratio.median <= MOST_REDIS for ratio in of_single)
    figures = {
        "payload_bytes": PAYLOAD_BYTES,
        "operations": OPERATIONS,
        "lanes": LANES,
        "shares": bench.shares(),
        "pinned": pinned,
        "results": results,
        "bounds": {"replica": MOST_CPU, "p50_ms": MOST_P50_MS, "master": MOST_REDIS},
        "passed": passed,
    }
    report("cluster", bench.single, given, table, figures)
    return passed


def values(measured: Sequence[Measured], name: str) -> list[float]:
    return [float(getattr(one, name)) for one in measured]


def to_single(found: dict[Case, list[Measured]], rate: int, place: int) -> Spread:
    """Redis' CPU for an event at a master, relative to that of a single server at this master's own rate."""
    master = [one.masters_us[place] for one in found[Case(rate, "cluster")]]
    return ratios(master, [one.masters_us[0] for one in found[Case(rate, "single", place)]])


if __name__ == "__main__":
    sys.exit(main())
