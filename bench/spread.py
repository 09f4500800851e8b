"""How evenly long-lived connections spread over processes that serve one address: with one listening socket per process
(SO_REUSEPORT: the kernel chooses by a hash of the addresses), and with one socket that all processes accept from."""

import argparse
import asyncio
import json
import socket
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from multiprocessing.connection import Connection
from typing import NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.harness import alternating, note, options, read_options
from bench.processes import Child
from progress_broker.settings import Settings
from progress_server.server.sockets import BACKLOG, listen, listen_for_each

SLOWLY_A_SECOND = 500
BUSY_S, PERIOD_S = 0.009, 0.01
"""How long the busy process blocks its event loop in each period."""
ACCEPTED_S = 30.0


class Case(NamedTuple):
    sharing: str
    processes: int
    connections: int
    pace: str
    busy: bool


def own(count: int) -> list[socket.socket]:
    return listen_for_each(Settings(port=0, _env_file=None), count)


def shared(count: int) -> list[socket.socket]:
    return [listen(Settings(port=0, _env_file=None))] * count


SHARINGS: dict[str, Callable[[int], list[socket.socket]]] = {"own": own, "shared": shared}


def accept(pipe: Connection, listener: socket.socket, busy: bool) -> None:
    """The process: it accepts connections on the same kind of event loop as the server, and keeps them open."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_accept(pipe, listener, busy))


async def _accept(pipe: Connection, listener: socket.socket, busy: bool) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    held: list[asyncio.BaseTransport] = []

    class Held(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            held.append(transport)  # it stays open, like a stream

    def answer() -> None:
        try:
            pipe.recv()
            pipe.send(len(held))
        except EOFError:
            loop.remove_reader(pipe.fileno())
            ended.set()

    def spin() -> None:
        until = time.perf_counter() + BUSY_S
        while time.perf_counter() < until:
            pass
        loop.call_later(PERIOD_S - BUSY_S, spin)

    loop.add_reader(pipe.fileno(), answer)
    if busy:
        spin()
    await loop.create_server(Held, sock=listener, backlog=BACKLOG)
    pipe.send("ready")
    await ended.wait()
    for transport in held:
        transport.close()


def measure(case: Case) -> list[int]:
    """Return the number of connections of each process. The first is the busy one."""
    with ExitStack() as resources:
        listeners = SHARINGS[case.sharing](case.processes)
        for listener in listeners:
            resources.callback(listener.close)
        children = [
            resources.enter_context(Child(accept, listener, case.busy and first, cores=frozenset()))
            for first, listener in zip([True, *[False] * case.processes], listeners, strict=False)
        ]
        resources.enter_context(connected(listeners[0].getsockname(), case))
        until = time.monotonic() + ACCEPTED_S
        while sum(counts := [child.ask() for child in children]) < case.connections:
            if time.monotonic() > until:
                raise SystemExit(f"{case}: only {counts} were accepted within {ACCEPTED_S:.0f} s")
            time.sleep(0.02)
    return counts


@contextmanager
def connected(address: tuple[str, int], case: Case) -> Iterator[None]:
    """Open the connections, as fast as possible or one by one, and keep them open."""
    with ExitStack() as connections:
        began = time.monotonic()
        for number in range(case.connections):
            if case.pace == "slowly":
                time.sleep(max(0.0, began + number / SLOWLY_A_SECOND - time.monotonic()))
            connections.enter_context(socket.create_connection(address, timeout=ACCEPTED_S))
        yield


def main() -> None:
    parser = options(__doc__, rounds=3, seconds=1)
    given = read_options(parser)
    sizes = product([2], [200]) if given.quick else product([2, 4], [1_000, 4_000])
    cases = [Case(a, *b, *c) for a, b, c in product(SHARINGS, sizes, product(("quickly", "slowly"), (False, True)))]
    found: defaultdict[Case, list[list[int]]] = defaultdict(list)
    for case in alternating(cases, given.rounds):
        found[case].append(measure(case))
        note(f"{case}: {found[case][-1]}")
    show(given, cases, found)


def show(given: argparse.Namespace, cases: list[Case], found: dict[Case, list[list[int]]]) -> None:
    table = Table(title="Connections per process, in % of an even share: lowest, highest, standard deviation")
    for title in ("sockets", "processes", "connections", "opened", "one busy", "lowest", "highest", "sd", "busy has"):
        table.add_column(title, justify="left" if title in ("sockets", "opened", "one busy") else "right")
    results = []
    for case in cases:
        share = case.connections / case.processes
        low, high = (pick(pick(counts) for counts in found[case]) / share for pick in (min, max))
        deviation = statistics.median(statistics.pstdev(counts) / share for counts in found[case])
        busy = statistics.median(counts[0] / share for counts in found[case])
        table.add_row(
            case.sharing,
            str(case.processes),
            f"{case.connections:,}",
            case.pace,
            "yes" if case.busy else "",
            *(f"{100 * value:.0f}" for value in (low, high)),
            f"{100 * deviation:.1f}",
            f"{100 * busy:.0f}" if case.busy else "",
        )
        results.append({**case._asdict(), "accepted": found[case], "sd_of_share": round(deviation, 3)})
    (Console() if sys.stdout.isatty() else Console(width=120)).print(table)
    told = {"benchmark": "spread", "command": machine.command(), "rounds": given.rounds, "results": results}
    print(json.dumps({**told, "machine": machine.facts({})}, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main()
