"""The effect of hostile clients on good ones: 100 clients watch an operation while 5,000 others never read, and while
1,000 handshakes per second are rejected. Exits with 1 if either more than doubles the 99th percentile of the good
clients, or if the memory for the stuck clients is not bounded and released."""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from rich.table import Table

from bench import load
from bench.contenders import GUARDED
from bench.contest import Contest, Delivered, contest, warm
from bench.harness import Spread, note, options, ratios, read_options, report
from bench.processes import Child, Cores, PrivateRedis, pin

GOOD = 100
EVENTS_A_SECOND = 50.0
REJECTED_PATH, REJECTED = "/v1/operations/anybody-s/stream", "status 401"
"""The request of unauthenticated clients, and the response they get."""
REJECTED_WITHIN_S = 5
"""Upper limit for how long an unauthenticated client is connected."""
MOST = 2.0
MOST_STUCK_BYTES = 128 * 1024
"""Maximum memory per stuck client: its buffer of 64 KiB, one or two writes, and the connection itself."""
MOST_LEFT_BYTES = 2 * 1024
"""Maximum further memory per client for a second group of clients. Freed memory stays with the process for them."""
SEGMENT_BYTES, RECEIVE_BYTES = 1460, 8192  # as over a network: see bench/memory.py
FILL_EVENTS, FILL_TOGETHER, FILL_S = 1_500, 50, 5.0
"""This many events of 300 bytes fill the buffers of kernel and server for a client."""
SETTLE_S = 3.0
OPENED_A_SECOND = 1_000.0


class Hostile(NamedTuple):
    kind: str
    calm: Delivered
    hostile: Delivered
    peak_bytes: float = 0.0
    left_bytes: float = 0.0
    rejected_a_second: float = 0.0

    @property
    def wrong(self) -> str:
        return "; ".join(one.wrong for one in (self.calm, self.hostile) if one.wrong)


def stuck(redis: PrivateRedis, cores: Cores, given: argparse.Namespace) -> Hostile:
    """Measure without stuck clients, then with clients whose buffers are full on both sides. Then let as many connect
    again."""
    with good_ones(redis, cores, given) as run:
        calm = run.deliver(given.seconds, EVENTS_A_SECOND)
        before = run.server.rss_bytes()
        run.server.forget_peak()
        with crowd(run, cores, given):
            hostile = run.deliver(given.seconds, EVENTS_A_SECOND)
            peak = run.server.peak_bytes()
        time.sleep(given.settle_s)
        first = run.server.rss_bytes()
        with crowd(run, cores, given):
            pass
        time.sleep(given.settle_s)
        left = run.server.rss_bytes() - first
    return Hostile("stuck", calm, hostile, (peak - before) / given.stuck, left / given.stuck)


@contextmanager
def crowd(run: Contest, cores: Cores, given: argparse.Namespace) -> Iterator[None]:
    """Keep stuck clients connected; their buffers are full."""
    plan = run.server.plan(segment_bytes=SEGMENT_BYTES, receive_bytes=RECEIVE_BYTES)
    with Child(load.run, plan, cores=cores.others) as clients:
        clients.ask("open", given.stuck, OPENED_A_SECOND, within_s=120)
        clients.ask("pause", given.stuck, 3_600)
        run.deliver(FILL_S, FILL_EVENTS / FILL_S, FILL_TOGETHER)
        yield


def rejected(redis: PrivateRedis, cores: Cores, given: argparse.Namespace) -> Hostile:
    """Measure without handshakes, then while unauthenticated clients connect and are rejected."""
    with good_ones(redis, cores, given, GUARDED) as run:
        calm = run.deliver(given.seconds, EVENTS_A_SECOND)
        plan = run.server.plan()._replace(path=REJECTED_PATH)
        with Child(load.run, plan, cores=cores.others) as strangers, ThreadPoolExecutor(1) as beside:
            count = round(given.handshakes * (given.seconds + 1))
            within_s, at_once = 4 * given.seconds + 60, round(REJECTED_WITHIN_S * given.handshakes)
            coming = beside.submit(strangers.ask, "open", count, given.handshakes, within_s, at_once, within_s=within_s)
            time.sleep(0.5)
            hostile = run.deliver(given.seconds, EVENTS_A_SECOND)
            took_s = coming.result()
            told = strangers.ask("figures")
    if told["failures"] != {REJECTED: count}:
        note(f"unauthenticated clients were not all rejected: {told['failures']}, {told['attached']} attached")
    return Hostile("rejected", calm, hostile, rejected_a_second=count / took_s)


@contextmanager
def good_ones(
    redis: PrivateRedis, cores: Cores, given: argparse.Namespace, contender: str = "broker"
) -> Iterator[Contest]:
    with contest(contender, redis, cores, GOOD, type="log", arrival=True) as run:
        warm(run, given.seconds, EVENTS_A_SECOND)
        yield run


MEASURES = {"stuck": stuck, "rejected": rejected}


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=30)
    parser.add_argument("--stuck", type=int, default=None, help="clients that never read (5,000)")
    parser.add_argument("--handshakes", type=float, default=None, help="rejected handshakes per second (1,000)")
    parser.add_argument("--only", choices=MEASURES, help="run only this measurement")
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if a bound is exceeded"
    )
    given = read_options(parser)
    given.stuck = given.stuck or (50 if given.quick else 5_000)
    given.handshakes = given.handshakes or (100.0 if given.quick else 1_000.0)
    given.settle_s = 0.5 if given.quick else SETTLE_S
    kinds = [given.only] if given.only else list(MEASURES)
    cores = Cores.split()
    pin(cores.others)
    found: dict[str, list[Hostile]] = {kind: [] for kind in kinds}
    with PrivateRedis(cores.others) as redis:
        for kind in kinds * given.rounds:
            one = MEASURES[kind](redis, cores, given)
            for when, it in (("calm", one.calm), (kind, one.hostile)):
                late = it.clients["latency_ms"]
                note(
                    f"{when:8} p50 {late['p50']:.2f} ms, p99 {late['p99']:.2f} ms; the server used"
                    f" {100 * it.server_cpu:.0f} % of a core, other processes {100 * it.others_cpu:.0f} %"
                )
            sizes = f"{one.peak_bytes:,.0f} bytes each, {one.left_bytes:,.0f} more for a second crowd"
            note(f"{sizes}; {one.rejected_a_second:,.0f} rejected/s")
            if one.wrong:
                note(f"{kind}: WRONG: {one.wrong}")
            found[kind].append(one)
        passed = show(redis, given, found)
    exact = not any(one.wrong for rounds in found.values() for one in rounds)
    return 0 if exact and (passed or given.quick or given.no_check) else 1


def show(redis: PrivateRedis, given: argparse.Namespace, found: dict[str, list[Hostile]]) -> bool:
    table = Table(
        title=f"{GOOD} good clients, {EVENTS_A_SECOND:g} events/s, ms to their sockets: median (lowest-highest)"
    )
    for title in (
        "hostile clients",
        "p50 calm",
        "p50",
        "p99 calm",
        "p99",
        "p99 ratio",
        "CPU %",
        "KiB each",
        "KiB left",
        "exact",
    ):
        table.add_column(title, justify="left" if title in ("hostile clients", "exact") else "right")
    beside = {"stuck": f"{given.stuck:,} stuck", "rejected": f"{given.handshakes:,.0f} rejected/s"}
    results, passed = [], True
    for kind, rounds in found.items():
        late = {
            f"{name}_{when}": [getattr(one, when).clients["latency_ms"][name] for one in rounds]
            for name in ("p50", "p99")
            for when in ("calm", "hostile")
        }
        figures = {name: Spread.of(values) for name, values in late.items()}
        figures["p99_ratio"] = ratios(late["p99_hostile"], late["p99_calm"])
        figures["server_cpu"] = Spread.of([one.hostile.server_cpu for one in rounds])
        figures["peak_bytes"] = Spread.of([one.peak_bytes for one in rounds])
        figures["left_bytes"] = Spread.of([one.left_bytes for one in rounds])
        figures["rejected_a_second"] = Spread.of([one.rejected_a_second for one in rounds])
        passed &= figures["p99_ratio"].median <= MOST
        passed &= figures["peak_bytes"].median <= MOST_STUCK_BYTES and figures["left_bytes"].median <= MOST_LEFT_BYTES
        wrong = [one.wrong for one in rounds if one.wrong]
        table.add_row(
            beside[kind],
            *(figures[name].text(2) for name in (*late, "p99_ratio")),
            f"{100 * figures['server_cpu'].median:.0f}",
            f"{figures['peak_bytes'].median / 1024:.1f}",
            f"{figures['left_bytes'].median / 1024:.1f}",
            "NO" if wrong else "yes",
        )
        results.append({"kind": kind, **{name: spread.json() for name, spread in figures.items()}, "wrong": wrong})
    told = {
        "good": GOOD,
        "stuck": given.stuck,
        "handshakes_a_second": given.handshakes,
        "events_a_second": EVENTS_A_SECOND,
    }
    report("hostile", redis, given, table, {**told, "results": results, "bound": MOST, "passed": passed})
    return passed


if __name__ == "__main__":
    sys.exit(main())
