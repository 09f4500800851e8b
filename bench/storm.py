"""A reconnect storm: 5,000 clients are disconnected, 100 events are published to each operation, and within a second
all clients reconnect with their positions, to a replica that no longer holds their operations. Exits with 1 if an event
was missed or came twice, if Redis was read more than 1.2 times per operation, if a client cost the server over 550
microseconds of CPU, or if it took over 5 s."""

import argparse
import sys
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from rich.table import Table

from bench import contenders, load
from bench.clients import Plan
from bench.contenders import Server
from bench.harness import Spread, note, options, read_options, report
from bench.processes import Child, Cores, PrivateRedis, pin, serve
from bench.publisher import Publisher

CLIENTS, OPERATIONS = 5_000, (1, 50, 1_000)
BEHIND = 100
BEGUN = 2  # the events from its creation
TOGETHER = 10
STORM_S = 1.0
OPENED_A_SECOND = 500.0
PAYLOAD_BYTES = 180  # an event of 300 bytes on the wire
MOST_READS, MOST_CPU_US, MOST_S = 1.2, 550, 5.0
"""Bounds of the medians. That of the CPU is for the machine of `bench/results.md`: the run has no other to compare."""
READS = ("xrange", "xrevrange", "hmget", "hgetall", "hget", "xinfo|stream")
WITHOUT_CHECKS = {"PROGRESS_SWEEP_INTERVAL_S": "600", "PROGRESS_PROBE_INTERVAL_S": "600"}
"""So only reads for clients are counted. A replica also reads the state of each watched operation without events, after
5 s, 10 s, 20 s and so on, and two hashes for each probe, however many clients there are: more in a longer storm."""
WITHIN_S = 120.0
SETTLE_S, IDLE = 1.0, 0.05
"""The replica is idle when it takes less than this share of a core for so long."""


class Storm(NamedTuple):
    operations: int
    attached_s: float
    complete_s: float
    """Seconds until each client had all events."""
    rejected: int
    reads: float
    """Reads of Redis per operation for what the clients had missed. The blocking reads of the feeds do not count."""
    cpu_us: float
    """CPU of the server per client, for its handshake and the events it had missed."""
    wrong: str


def publish(pipe: Connection, url: str, operations: int) -> None:
    """The process: on request it publishes a number of events to each operation."""
    publisher = Publisher(url, operations, PAYLOAD_BYTES)
    publisher.create()

    def to_each(events: int) -> None:
        for _ in range(events // TOGETHER):
            publisher.publish_to_each(TOGETHER)

    serve(pipe, to_each)


def storm(redis: PrivateRedis, cores: Cores, operations: int, clients: int) -> Storm:
    with (
        contenders.start("broker", redis, cores.measured, WITHOUT_CHECKS) as server,
        Child(publish, redis.url, operations, cores=cores.others) as publisher,
        Child(load.run, _plan(server, operations), cores=cores.others) as crowd,
    ):
        crowd.ask("open", clients, OPENED_A_SECOND, within_s=WITHIN_S)
        publisher.ask(BEHIND, within_s=WITHIN_S)
        crowd.ask("await_number", BEGUN + BEHIND, within_s=WITHIN_S)
        crowd.ask("disconnect")
        publisher.ask(BEHIND, within_s=WITHIN_S)
        _settle(server)
        before, cpu_s = sum(map(redis.calls, READS)), server.cpu_s()
        told = crowd.ask("storm", STORM_S, None, None, BEGUN + 2 * BEHIND, within_s=WITHIN_S)
        cpu_s = server.cpu_s() - cpu_s
        reads = sum(map(redis.calls, READS)) - before
        got = crowd.ask("figures")
    return Storm(
        operations,
        told["attached_s"] or WITHIN_S,
        told["complete_s"] or WITHIN_S,
        told["rejected"],
        reads / operations,
        1e6 * cpu_s / clients,
        _wrong(got),
    )


def _settle(server: Server) -> None:
    """Wait until the replica has read what was published, and has dropped the operations without subscribers."""
    end = time.monotonic() + WITHIN_S
    busy_s = SETTLE_S
    while busy_s > IDLE * SETTLE_S and time.monotonic() < end:
        before = server.cpu_s()
        time.sleep(SETTLE_S)
        busy_s = server.cpu_s() - before


def _plan(server: Server, operations: int) -> Plan:
    return Plan(server.port, "/v1/operations/operation-{}/stream", operations=operations, key=server.kind.key)


def _wrong(got: dict[str, Any]) -> str:
    everything = BEGUN + 2 * BEHIND
    found = [f"{got[name]:,} {name}" for name in ("gaps", "repeats") if got[name]]
    if got["last"] != [everything, everything]:
        found.append(f"of {everything} events clients had {got['last'][0]} to {got['last'][1]}")
    return "; ".join(found)


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=STORM_S)
    parser.add_argument("--clients", type=int, default=None, help=f"number of clients ({CLIENTS:,})")
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if a bound is exceeded"
    )
    given = read_options(parser)
    clients = given.clients or (100 if given.quick else CLIENTS)
    numbers = [min(operations, clients) for operations in (OPERATIONS[:2] if given.quick else OPERATIONS)]
    cores = Cores.split()
    pin(cores.others)
    found: list[Storm] = []
    with PrivateRedis(cores.others) as redis:
        for operations in numbers * given.rounds:
            one = storm(redis, cores, operations, clients)
            note(
                f"{operations:,} operations: attached in {one.attached_s:.2f} s, complete in {one.complete_s:.2f} s,"
                f" {one.rejected:,} rejected, {one.reads:.2f} reads per operation"
            )
            if one.wrong:
                note(f"WRONG: {one.wrong}")
            found.append(one)
        passed = show(redis, given, found, clients)
    exact = not any(one.wrong for one in found)
    return 0 if exact and (passed or given.quick or given.no_check) else 1


def show(redis: PrivateRedis, given: argparse.Namespace, found: list[Storm], clients: int) -> bool:
    table = Table(title=f"{clients:,} clients reconnect within {STORM_S:g} s, {BEHIND} events behind")
    titles = (
        "operations",
        "all attached, s",
        "all complete, s",
        "rejections",
        "reads per operation",
        "CPU us per client",
        "exact",
    )
    for title in titles:
        table.add_column(title, justify="right")
    results, passed = [], True
    bounds = {"reads": MOST_READS, "cpu_us": MOST_CPU_US, "attached_s": MOST_S}
    for operations in sorted({one.operations for one in found}):
        rounds = [one for one in found if one.operations == operations]
        figures = {
            name: Spread.of([float(getattr(one, name)) for one in rounds])
            for name in ("attached_s", "complete_s", "rejected", "reads", "cpu_us")
        }
        exact = not any(one.wrong for one in rounds)
        passed &= all(figures[name].median <= most for name, most in bounds.items())
        digits = (2, 2, 0, 2, 0)
        cells = [spread.text(places) for spread, places in zip(figures.values(), digits, strict=True)]
        table.add_row(f"{operations:,}", *cells, "yes" if exact else "NO")
        results.append(
            {"operations": operations, "exact": exact} | {name: spread.json() for name, spread in figures.items()}
        )
    report("storm", redis, given, table, {"clients": clients, "results": results, "bounds": bounds, "passed": passed})
    return passed


if __name__ == "__main__":
    sys.exit(main())
