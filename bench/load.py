"""The load generator: clients of server-sent events that count them, check their order and tell how late they are."""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from bench.clients import Clients, Plan

WITHIN_S = 60.0
OPENED_A_SECOND = 2_000.0


def run(pipe: Connection, plan: Plan, kind: "type[Load] | None" = None) -> None:
    """The process: reads all the while, and answers what a `Load`, or a kind of it, can be asked."""
    gc.disable()  # little piles up, and its pauses would count as the server's
    load = (kind or Load)(plan)
    load.clients.watch(pipe.fileno())
    pipe.send("ready")
    with suppress(EOFError, BrokenPipeError):
        while True:
            if load.clients.turn():
                question, *args = pipe.recv()
                pipe.send(getattr(load, question)(*args))


class Load:
    """What clients can be made to do together, and what it came to."""

    def __init__(self, plan: Plan) -> None:
        self.clients = Clients(plan)
        self.mark()

    def open(
        self,
        connections: int,
        a_second: float = OPENED_A_SECOND,
        within_s: float = WITHIN_S,
        at_once: int | None = None,
    ) -> float:
        """Connect so many more; return the seconds until all were attached, or refused for good."""
        began = time.monotonic()
        self.clients.open(self.clients.add(connections, at_once), a_second)
        self.clients.run_until(self.clients.all_attached, connections / a_second + within_s)
        return time.monotonic() - began

    def disconnect(self) -> None:
        """Close all connections, until they are opened again."""
        self.clients.disconnect()

    def close(self) -> None:
        self.clients.close()

    def mark(self) -> None:
        """Count from here."""
        self.clients.tally.mark()
        for client in self.clients.all:
            client.follower.events = 0
        self._marked_at, self._marked_cpu_s = time.monotonic(), time.process_time()

    def await_events(self, each: int, within_s: float = WITHIN_S) -> bool:
        """Go on until each client had so many events since the mark; return whether it did."""
        clients, tally = self.clients.all, self.clients.tally

        def had() -> bool:
            enough = tally.events >= each * len(clients)
            return enough and all(client.follower.events >= each for client in clients)

        return self.clients.run_until(had, within_s)

    def await_number(self, number: int, within_s: float = WITHIN_S) -> bool:
        """Go on until each client had the event of this number; return whether it did."""
        clients = self.clients.all
        return self.clients.run_until(lambda: all((one.follower.last or 0) >= number for one in clients), within_s)

    def pause(self, connections: int, seconds: float) -> None:
        """Let the first so many clients stop reading for a while."""
        for client in self.clients.all[:connections]:
            self.clients.pause(client, seconds)

    def storm(
        self, seconds: float = 1.0, position: str | None = None, after: int | None = None, number: int | None = None
    ) -> dict[str, Any]:
        """Within so many seconds close each connection and open it again, with its own position or, if one is given,
        with that of the event numbered `after`. Tell how long it took until all were attached, and until each had the
        event of the number given, or the highest that anyone had before."""
        clients, refused = self.clients.all, self.clients.refused
        upto = number if number is not None else max((one.follower.last or 0 for one in clients), default=0)
        for client in clients:
            client.position = position or client.follower.position()
            if position is not None:
                client.follower.moved_to(after)
        began = time.monotonic()
        self.clients.open(clients, len(clients) / seconds)
        attached = self.clients.run_until(self.clients.all_attached, WITHIN_S)
        attached_s = time.monotonic() - began
        complete = self.await_number(upto)
        return {
            "attached_s": round(attached_s, 3) if attached else None,
            "complete_s": round(time.monotonic() - began, 3) if complete else None,
            "refused": self.clients.refused - refused,
            "number": upto,
        }

    def figures(self) -> dict[str, Any]:
        """Tell what it came to since the mark."""
        clients, tally = self.clients, self.clients.tally
        each = [client.follower.events for client in clients.all] or [0]
        last = [client.follower.last or 0 for client in clients.all] or [0]
        seconds, cpu_s = time.monotonic() - self._marked_at, time.process_time() - self._marked_cpu_s
        return {
            "connections": len(clients.all),
            "attached": sum(client.attached for client in clients.all),
            "chunked": sum(client.response.chunked for client in clients.all),
            "refused": clients.refused,
            "cut_off": clients.cut_off,
            "failures": dict(clients.failures),
            "events": tally.events,
            "fewest": min(each),
            "most": max(each),
            "last": [min(last), max(last)],
            "gaps": tally.gaps,
            "repeats": tally.repeats,
            "events_per_read": round(tally.events / max(1, tally.reads), 2),
            "bytes": tally.bytes,
            "bytes_per_event": round(tally.bytes / max(1, tally.events), 1),
            "latency_ms": {name: round(value, 3) for name, value in tally.latencies_ms().items()},
            "seconds": round(seconds, 3),
            "events_per_s": round(tally.events / seconds),
            "cpu_s": round(cpu_s, 4),
            "cpu_us_per_event": round(1e6 * cpu_s / max(1, tally.events), 2),
        }


def main() -> int:
    given = _options().parse_args()
    host, _, port = given.address.rpartition(":")
    plan = Plan(
        int(port),
        given.path,
        host or "127.0.0.1",
        operations=given.operations,
        key=f'"{given.key}":',
        headers=tuple(given.header),
        reopen=given.reopen,
        arrival=given.arrival,
    )
    gc.disable()
    load = Load(plan)
    opened_s = load.open(given.connections, given.rate)
    print(f"{given.connections} connections in {opened_s:.2f} s", file=sys.stderr)
    if given.slow:
        load.pause(round(given.slow * given.connections), given.slow_seconds)
    enough = load.await_events(given.events or sys.maxsize, given.seconds) or not given.events
    told: dict[str, Any] = {"opened_s": round(opened_s, 3), **load.figures()}
    if given.storm is not None:
        told["storm"] = load.storm(given.storm_seconds, given.storm or None)
        told |= load.figures()
    print(json.dumps(told), flush=True)
    return 0 if enough and not (told["failures"] or told["gaps"] or told["repeats"]) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"{__doc__} Ends with 1 when an event was missed or came twice.")
    add: Callable[..., Any] = parser.add_argument
    add("address", metavar="HOST:PORT")
    add("path", help="of the stream; {} in it is replaced by the operation's number, from 0")
    add("--connections", type=int, default=1, metavar="N")
    add("--operations", type=int, default=1, metavar="K", help="the connections are spread over so many")
    add("--seconds", type=float, default=10.0, metavar="S", help="how long to listen, at most (%(default)s)")
    add("--events", type=int, default=0, metavar="N", help="stop when each connection had so many")
    add("--rate", type=float, default=OPENED_A_SECOND, metavar="R", help="connections opened a second (%(default)s)")
    add("--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent with each request")
    add("--key", default="n", help="the field that holds an event's sequence number (%(default)s)")
    add("--reopen", action="store_true", help="come back with the last position when cut off")
    add("--arrival", action="store_true", help="take latencies to the kernel's arrival time of an event")
    add("--slow", type=float, default=0.0, metavar="SHARE", help="share of connections that stop reading at first")
    add("--slow-seconds", type=float, default=5.0, metavar="S", help="for so long (%(default)s)")
    add("--storm", metavar="POSITION", help="at the end, reopen all with this Last-Event-ID; '' is each one's own")
    add("--storm-seconds", type=float, default=1.0, metavar="S", help="within so many seconds (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
