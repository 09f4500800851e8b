"""One measurement of a contender: attach clients, publish events for a while, measure the cost and check the
deliveries."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench import contenders, load, senders
from bench.contenders import Server
from bench.harness import note
from bench.processes import Child, Cores, PrivateRedis, busy_s, pin

WIRE_BYTES = 300
"""Approximate bytes of an event on the wire, including the framing of server-sent events and HTTP."""
OPENED_A_SECOND = 2_000.0
DRAIN_S = 60.0
WARM_S = 1.0
NOISY = 0.2  # cores used by other processes; above this a measurement is repeated, and the quietest one counts


class Delivered(NamedTuple):
    published: int
    seconds: float
    cpu_s: float
    """CPU of the server, from the first published event to the last delivered one."""
    redis_cpu_s: float
    others_cpu: float
    """Cores used by other processes at the same time."""
    clients: dict[str, Any]
    """The figures of the clients: see `Load.figures`."""
    wrong: str
    """What is wrong with the deliveries; empty if each client got each event once, in order."""

    @property
    def deliveries(self) -> int:
        return int(self.clients["events"])

    @property
    def server_cpu(self) -> float:
        return self.cpu_s / self.seconds


class Contest(NamedTuple):
    server: Server
    publisher: Child
    clients: Child
    redis: PrivateRedis

    def deliver(self, seconds: float, events_a_second: float, together: int = 1) -> Delivered:
        """Publish for `seconds`, and wait until all events are delivered."""
        self.clients.ask("mark")
        cpu_s, redis_s, all_s = self.server.cpu_s(), self.redis.cpu_s(), busy_s()
        done = self.publisher.ask(seconds, events_a_second, together, within_s=2 * seconds + DRAIN_S)
        self.clients.ask("await_events", done.events, DRAIN_S, within_s=2 * DRAIN_S)
        cpu_s, redis_s, all_s = self.server.cpu_s() - cpu_s, self.redis.cpu_s() - redis_s, busy_s() - all_s
        got = self.clients.ask("figures")
        others_s = all_s - cpu_s - redis_s - done.cpu_s - got["cpu_s"]
        others = max(0.0, others_s) / got["seconds"]
        return Delivered(done.events, got["seconds"], cpu_s, redis_s, others, got, faults(done.events, got))


@contextmanager
def contest(
    name: str,
    redis: PrivateRedis,
    cores: Cores,
    connections: int,
    *,
    type: str = "progress",
    wire_bytes: int = WIRE_BYTES,
    **plan: Any,
) -> Iterator[Contest]:
    """Start a contender, attach clients, and warm it up with the events of one second."""
    with contenders.start(name, redis, cores.measured) as server:
        payload_bytes = wire_bytes - server.kind.overhead_bytes
        with (
            Child(senders.run, server.target, type, payload_bytes, cores=cores.others) as publisher,
            Child(load.run, server.plan(**plan), cores=cores.others) as clients,
        ):
            run = Contest(server, publisher, clients, redis)
            attach(server, clients, connections)
            yield run


def attach(server: Server, clients: Child, connections: int) -> None:
    """Connect more clients, and wait until all are attached."""
    clients.ask("open", connections, OPENED_A_SECOND, within_s=2 * DRAIN_S + connections / OPENED_A_SECOND)
    if server.kind.greets:
        clients.ask("await_events", 1, DRAIN_S, within_s=2 * DRAIN_S)
    got = clients.ask("figures")
    if got["attached"] != got["connections"]:
        raise SystemExit(f"only {got['attached']:,} of {got['connections']:,} clients could attach: {got['failures']}")


def warm(run: Contest, seconds: float, events_a_second: float, together: int = 1) -> None:
    wrong = run.deliver(min(WARM_S, seconds), events_a_second, together).wrong
    if wrong:
        note(f"while warming up: {wrong}")


def attempts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attempts", type=int, default=2, help="attempts if other processes use the machine (%(default)s)"
    )


def quietest(given: argparse.Namespace, measure: Callable[[], Delivered]) -> Delivered:
    """Measure, and repeat up to `--attempts` times if other processes use the machine.

    A wrong delivery is never retried.
    """
    most = 1 if given.quick else given.attempts
    tries: list[Delivered] = []
    while not tries or (len(tries) < most and tries[-1].others_cpu > NOISY and not tries[-1].wrong):
        tries.append(measure())
    return tries[-1] if tries[-1].wrong else min(tries, key=lambda one: one.others_cpu)


@contextmanager
def ground() -> Iterator[tuple[PrivateRedis, Cores]]:
    """Yield a Redis and the cores for measurements. This process moves to the cores that are not measured."""
    cores = Cores.split()
    pin(cores.others)
    with PrivateRedis(cores.others) as redis:
        yield redis, cores


def verdict(given: argparse.Namespace, results: Iterable[Delivered], *, passed: bool) -> int:
    """Return the exit code: 1 if a client missed an event or got it twice, or if a bound was exceeded."""
    exact = not any(one.wrong for one in results)
    return 0 if (exact and (passed or given.quick)) or (given.no_check and not given.quick) else 1


def choose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--contenders",
        default=",".join(contenders.KINDS),
        help="contenders to run, separated by commas (%(default)s); those not installed are skipped",
    )


def chosen(given: argparse.Namespace) -> list[str]:
    """Return the selected contenders that can run here; print those that can't."""
    wanted = [name.strip() for name in given.contenders.split(",")]
    unknown = [name for name in wanted if name not in contenders.KINDS]
    if unknown:
        raise SystemExit(f"no such contender: {', '.join(unknown)}; available: {', '.join(contenders.KINDS)}")
    present = contenders.present()
    for name in wanted:
        if name not in present:
            note(f"{name} is skipped: Debian's packages nginx and libnginx-mod-nchan are not installed")
    return [name for name in wanted if name in present]


def faults(published: int, got: dict[str, Any]) -> str:
    """Return what is wrong with the deliveries; empty if each client got each event once, in order."""
    found = []
    if got["fewest"] != published or got["most"] != published:
        found.append(f"of {published:,} events clients got {got['fewest']:,} to {got['most']:,}")
    if got["last"][0] != got["last"][1]:
        found.append(f"the numbers of their last events are {got['last'][0]:,} to {got['last'][1]:,}")
    found += [f"{got[name]:,} {name}" for name in ("gaps", "repeats", "cut_off") if got[name]]
    return "; ".join(found)
