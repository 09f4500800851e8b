"""The cost of sending the events of 50 operations to 20 clients: with one stream of many operations per client, or with
one stream per operation. Exits with 1 if a delivery on the former uses over twice the CPU of the latter, or if a client
misses an event. A stream of many needs more CPU for a cursor in each event, but saves connections and writes."""

import argparse
import select
import socket
import sys
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from rich.table import Table

from bench import dialing, inside
from bench.dialing import Plan
from bench.harness import Spread, alternating, note, options, ratios, read_options, report
from bench.processes import Child, Cores, PrivateRedis, pin
from bench.publisher import Publisher, names

OPERATIONS, CLIENTS = 50, 20
EVENTS_A_SECOND = 1_000.0
PAYLOAD_BYTES = 300
MARK = b'"type":"progress"'
DRAIN_S = 10.0
MOST_RATIO = 2.0
VARIANTS = ("many on one", "one each", "many on one, gzip", "one each, gzip")


class Measured(NamedTuple):
    us_per_delivery: float
    deliveries: int
    missed: int
    kib: float


def crowd(pipe: Connection, port: int, paths: list[str], headers: tuple[str, ...]) -> None:
    """The client process: one connection per path. It answers how many bytes and events it has received."""
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    dialing.raise_file_limit(len(paths))
    for path in paths:
        made = socket.create_connection(("127.0.0.1", port))
        made.sendall(dialing.request(Plan(port, path, headers=headers), 0, None))
        made.setblocking(False)
        sockets[made.fileno()] = made
        poll.register(made, select.EPOLLIN)
    poll.register(pipe, select.EPOLLIN)
    pipe.send("ready")
    events = size = 0
    kept = dict.fromkeys(sockets, b"")
    while True:
        for file, _ in poll.poll():
            if file not in sockets:
                try:
                    pipe.recv()
                    pipe.send((events, size))
                except EOFError:
                    return
                continue
            data = sockets[file].recv(1 << 18)
            if not data:
                raise SystemExit("a stream ended unexpectedly")
            size += len(data)
            text = kept[file] + data
            events += text.count(MARK)
            kept[file] = text[-len(MARK) + 1 :]


def measure(redis: PrivateRedis, cores: Cores, variant: str, given: argparse.Namespace) -> Measured:
    redis.client.flushall()
    publisher = Publisher(redis.url, OPERATIONS, PAYLOAD_BYTES)
    publisher.create()
    ids = names(OPERATIONS)
    many = ["/v1/stream?" + "&".join(f"operation={id}" for id in ids)]
    paths = CLIENTS * (many if variant.startswith("many") else [f"/v1/operations/{id}/stream" for id in ids])
    headers = ("Accept-Encoding: gzip",) if variant.endswith("gzip") else ()
    with (
        Child(inside.run, redis.url, cores=cores.measured) as replica,
        Child(crowd, replica.ask("port"), paths, headers, cores=cores.others) as clients,
    ):
        time.sleep(1.5)  # until all clients have their snapshots
        warm, _, _ = publisher.publish(0.5, EVENTS_A_SECOND)
        before, bytes_before = _settled(clients, warm * CLIENTS)
        cpu_s = replica.ask("cpu_s")
        published, _, _ = publisher.publish(given.seconds, EVENTS_A_SECOND)
        after, bytes_after = _settled(clients, before + published * CLIENTS)
        cpu_s = replica.ask("cpu_s") - cpu_s
    # Compressed events can't be counted without decompressing them. Tests check their order instead.
    deliveries = published * CLIENTS
    missed = 0 if headers else warm * CLIENTS + deliveries - after
    found = Measured(1e6 * cpu_s / deliveries, deliveries, missed, (bytes_after - bytes_before) / 1024)
    note(f"{variant}: {found.us_per_delivery:.2f} us of CPU per delivery; {found.missed} missed")
    return found


def _settled(clients: Child, expected: int) -> tuple[int, int]:
    end, last = time.monotonic() + DRAIN_S, (0, -1)
    while time.monotonic() < end:
        now: tuple[int, int] = clients.ask("counts")
        if now[0] >= expected or now == last:
            return now
        last = now
        time.sleep(0.2)
    return last


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=5)
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if the bound is exceeded"
    )
    given = read_options(parser)
    cores = Cores.split()
    pin(cores.others)
    found: dict[str, list[Measured]] = {name: [] for name in VARIANTS}
    with PrivateRedis(cores.others) as redis:
        for variant in alternating(VARIANTS, given.rounds):
            found[variant].append(measure(redis, cores, variant, given))
        passed = show(redis, given, found)
    return 0 if passed or given.quick or given.no_check else 1


def show(redis: PrivateRedis, given: argparse.Namespace, found: dict[str, list[Measured]]) -> bool:
    table = Table(title=f"{CLIENTS} clients, {OPERATIONS} operations, {EVENTS_A_SECOND:,.0f} events/s")
    for title in ("streams", "us of CPU per delivery", "ratio to one each", "bytes per delivery"):
        table.add_column(title, justify="right")
    costs = {name: [one.us_per_delivery for one in rounds] for name, rounds in found.items()}
    results: list[dict[str, Any]] = []
    passed = not any(one.missed for rounds in found.values() for one in rounds)
    for name, rounds in found.items():
        base = "one each, gzip" if name.endswith("gzip") else "one each"
        ratio = ratios(costs[name], costs[base])
        size = Spread.of([1024 * one.kib / one.deliveries for one in rounds])
        table.add_row(name, Spread.of(costs[name]).text(2), ratio.text(2), size.text(0))
        results.append({"streams": name, "us": Spread.of(costs[name]).json(), "ratio": ratio.json()})
        passed = passed and ratio.median <= MOST_RATIO
    report("bundle", redis, given, table, {"operations": OPERATIONS, "clients": CLIENTS, "results": results})
    return passed


if __name__ == "__main__":
    sys.exit(main())
