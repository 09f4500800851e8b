"""A contender with clients attached and a publisher beside it: publish for a while, and see what that cost and gave."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench import contenders, load, senders
from bench.contenders import Server
from bench.harness import note
from bench.processes import Child, Cores, PrivateRedis, busy_s, pin

WIRE_BYTES = 300
"""What an event takes on the wire, about, with the framing of server-sent events and of HTTP."""
OPENED_A_SECOND = 2_000.0
DRAIN_S = 60.0
WARM_S = 1.0
NOISY = 0.2  # cores that others used meanwhile; above it a measurement is made again, and the quietest one counts


class Delivered(NamedTuple):
    published: int
    seconds: float
    cpu_s: float
    """Of the server, from the first event published to the last one delivered."""
    redis_cpu_s: float
    others_cpu: float
    """Cores that others used meanwhile."""
    clients: dict[str, Any]
    """What the clients came to: see `Load.figures`."""
    wrong: str
    """What is wrong with what they got; empty if each got each event once, in order."""

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
        """Publish for a while, and wait until all is delivered."""
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
    """Start a contender, attach clients to it, and warm it up with a second's events."""
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
    """Connect so many more, and wait until all are attached."""
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
    parser.add_argument("--attempts", type=int, default=2, help="tries where others use the machine (%(default)s)")


def quietest(given: argparse.Namespace, measure: Callable[[], Delivered]) -> Delivered:
    """Measure, and again while others use the machine, but only so often. What is wrong once stays wrong."""
    most = 1 if given.quick else given.attempts
    tries: list[Delivered] = []
    while not tries or (len(tries) < most and tries[-1].others_cpu > NOISY and not tries[-1].wrong):
        tries.append(measure())
    return tries[-1] if tries[-1].wrong else min(tries, key=lambda one: one.others_cpu)


@contextmanager
def ground() -> Iterator[tuple[PrivateRedis, Cores]]:
    """Give what contests take place on: a Redis, and cores, of which we keep to those of the others."""
    cores = Cores.split()
    pin(cores.others)
    with PrivateRedis(cores.others) as redis:
        yield redis, cores


def verdict(given: argparse.Namespace, results: Iterable[Delivered], *, passed: bool) -> int:
    """Return what to end with: 1 if a client missed an event or got it twice, or a bound that counts was missed."""
    exact = not any(one.wrong for one in results)
    return 0 if (exact and (passed or given.quick)) or (given.no_check and not given.quick) else 1


def choose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--contenders",
        default=",".join(contenders.KINDS),
        help="which ones, separated by commas (%(default)s); what is not installed is left out",
    )


def chosen(given: argparse.Namespace) -> list[str]:
    """Return the contenders that are wanted and can be run; say which can't."""
    wanted = [name.strip() for name in given.contenders.split(",")]
    unknown = [name for name in wanted if name not in contenders.KINDS]
    if unknown:
        raise SystemExit(f"no such contender: {', '.join(unknown)}; there are {', '.join(contenders.KINDS)}")
    present = contenders.present()
    for name in wanted:
        if name not in present:
            note(f"{name} is left out: Debian's nginx and libnginx-mod-nchan are not installed")
    return [name for name in wanted if name in present]


def faults(published: int, got: dict[str, Any]) -> str:
    """Say what is wrong with what clients got of so many events; nothing if each got each once, in order."""
    found = []
    if got["fewest"] != published or got["most"] != published:
        found.append(f"of {published:,} events clients got {got['fewest']:,} to {got['most']:,}")
    if got["last"][0] != got["last"][1]:
        found.append(f"their last ones are from {got['last'][0]:,} to {got['last'][1]:,}")
    found += [f"{got[name]:,} {name}" for name in ("gaps", "repeats", "cut_off") if got[name]]
    return "; ".join(found)
