"""The load generator: clients of server-sent events that count events, check their order and measure their latency."""

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
    """The process: it reads all the time, and answers calls of the methods of `Load` or a subclass."""
    gc.disable()  # little garbage is created, and pauses would be counted as the server's
    load = (kind or Load)(plan)
    load.clients.watch(pipe.fileno())
    pipe.send("ready")
    with suppress(EOFError, BrokenPipeError):
        while True:
            if load.clients.turn():
                question, *args = pipe.recv()
                pipe.send(getattr(load, question)(*args))


class Load:
    """Controls a group of clients, and reports their figures."""

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
        """Connect more clients. Return the seconds until all are attached or permanently rejected."""
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
        """Reset the counts."""
        self.clients.tally.mark()
        for client in self.clients.all:
            client.follower.events = 0
        self._marked_at, self._marked_cpu_s = time.monotonic(), time.process_time()

    def await_events(self, each: int, within_s: float = WITHIN_S) -> bool:
        """Run until each client has `each` events since `mark`. Return whether that was reached in time."""
        clients, tally = self.clients.all, self.clients.tally

        def had() -> bool:
            enough = tally.events >= each * len(clients)
            return enough and all(client.follower.events >= each for client in clients)

        return self.clients.run_until(had, within_s)

    def await_number(self, number: int, within_s: float = WITHIN_S) -> bool:
        """Run until each client has the event `number`. Return whether that was reached in time."""
        clients = self.clients.all
        return self.clients.run_until(lambda: all((one.follower.last or 0) >= number for one in clients), within_s)

    def pause(self, connections: int, seconds: float) -> None:
        """Let the first `connections` clients stop reading for `seconds`."""
        for client in self.clients.all[:connections]:
            self.clients.pause(client, seconds)

    def storm(
        self, seconds: float = 1.0, position: str | None = None, after: int | None = None, number: int | None = None
    ) -> dict[str, Any]:
        """Close and reopen each connection within `seconds`.

        Each resumes from its own position or, if one is passed, from `position`, which is that of the event numbered
        `after`. Return how long it took until all were attached, and until each had the event `number`. Without a
        `number` it is the highest that any client had before.
        """
        clients, rejected = self.clients.all, self.clients.rejected
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
            "rejected": self.clients.rejected - rejected,
            "number": upto,
        }

    def figures(self) -> dict[str, Any]:
        """Return the figures since `mark`."""
        clients, tally = self.clients, self.clients.tally
        each = [client.follower.events for client in clients.all] or [0]
        last = [client.follower.last or 0 for client in clients.all] or [0]
        seconds, cpu_s = time.monotonic() - self._marked_at, time.process_time() - self._marked_cpu_s
        return {
            "connections": len(clients.all),
            "attached": sum(client.attached for client in clients.all),
            "chunked": sum(client.response.chunked for client in clients.all),
            "rejected": clients.rejected,
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
    parser = argparse.ArgumentParser(description=f"{__doc__} Exits with 1 if an event was missed or came twice.")
    add: Callable[..., Any] = parser.add_argument
    add("address", metavar="HOST:PORT")
    add("path", help="path of the stream; {} is replaced by the operation's number, from 0")
    add("--connections", type=int, default=1, metavar="N")
    add("--operations", type=int, default=1, metavar="K", help="number of operations; connections are spread over them")
    add("--seconds", type=float, default=10.0, metavar="S", help="maximum time to listen (%(default)s)")
    add("--events", type=int, default=0, metavar="N", help="stop when each connection has this many events")
    add("--rate", type=float, default=OPENED_A_SECOND, metavar="R", help="connections opened per second (%(default)s)")
    add("--header", action="append", default=[], metavar="'NAME: VALUE'", help="header to send with each request")
    add("--key", default="n", help="the field that holds an event's sequence number (%(default)s)")
    add("--reopen", action="store_true", help="reconnect with the last position after a disconnect")
    add("--arrival", action="store_true", help="measure latencies to the arrival of an event in the kernel")
    add("--slow", type=float, default=0.0, metavar="SHARE", help="share of connections that stop reading at the start")
    add("--slow-seconds", type=float, default=5.0, metavar="S", help="how long they stop reading (%(default)s)")
    add("--storm", metavar="POSITION", help="at the end, reopen all with this Last-Event-ID; '' means each one's own")
    add("--storm-seconds", type=float, default=1.0, metavar="S", help="time in which all reopen (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
