"""What gzip saves in bytes and costs in CPU: events of four sizes, for 1, 100 and 1,000 subscribers. It uses the real
channel, subscriptions and adopted outlets, on transports that accept all data and send nothing."""

import argparse
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import orjson
from rich.table import Table

from bench.harness import Spread, alternating, note, options, read_options, report
from bench.processes import Cores, PrivateRedis, pin
from progress_broker.live.channel import Channel
from progress_broker.live.history import Loader, RingLimits
from progress_broker.model.event import Event
from progress_broker.stream.delivery import Delivery, StreamPolicy
from progress_broker.stream.frames import make_frame
from progress_broker.stream.subscription import Subscription
from progress_server.protocols.extensions import Connection
from progress_server.sse.adopted import ChunkedOutlet
from progress_server.sse.adopted_gzip import GzipOutlet
from progress_server.sse.encodings import CHUNKED, chunked_gzip

SUBSCRIBERS = (1, 100, 1_000)
AS_IT_IS, STORED, DEFLATED = "plain", "stored", "deflated"
OVER = {STORED: 65_535, DEFLATED: 1}
SAMPLES = 500
STAGES = ("extract", "transform", "validate", "load", "index", "report")


def bare(dice: random.Random) -> dict[str, object]:
    return {"current": dice.randrange(9)}


def line(dice: random.Random) -> dict[str, object]:
    words = ("read", "skipped", "wrote", "customer", "order", "row", "in", "of", "chunk", "without", "address")
    text = " ".join(dice.choice(words) if dice.random() < 0.7 else str(dice.randrange(10_000)) for _ in range(25))
    return {"message": f"{text}, {dice.random() * 1000:.1f} ms", "level": "info", "stage": dice.choice(STAGES)}


def pipeline(dice: random.Random, stages: int, workers: int) -> dict[str, object]:
    share = round(dice.random() * 100, 1)
    return {
        "current": dice.randrange(10_000),
        "total": 10_000,
        "unit": "rows",
        "percent": share,
        "message": "loading customers",
        "rate": round(dice.random() * 90, 1),
        "eta_ms": dice.randrange(100_000),
        "stages": [
            {
                "name": name,
                "status": "running",
                "current": dice.randrange(10_000),
                "total": 10_000,
                "in_flight": dice.randrange(9),
                "percent": round(dice.random() * 100, 1),
                "weight": 3,
                "started_at": "2026-11-21T03:22:35.546Z",
                "duration_ms": dice.randrange(100_000),
            }
            for name in STAGES[:stages]
        ],
        "workers": {
            "active": workers,
            "max": 8,
            "queue_depth": dice.randrange(90),
            "workers": [
                {"id": i, "status": "processing", "item": f"chunk-{dice.randrange(1_000)}", "percent": share}
                for i in range(workers)
            ],
        },
        "metrics": {"entities_total": dice.randrange(1_000_000)},
    }


class Kind(NamedTuple):
    name: str
    type: bytes
    make: Callable[[random.Random], dict[str, object]]


KINDS = (
    Kind("a bare count", b"progress", bare),
    Kind("a log line", b"log", line),
    Kind("a pipeline's progress", b"progress", lambda dice: pipeline(dice, 1, 2)),
    Kind("a large pipeline's", b"progress", lambda dice: pipeline(dice, 6, 8)),
)


def events(kind: Kind) -> Iterator[Event]:
    """Yield events with increasing numbers. Payloads repeat after a while."""
    dice = random.Random(1)
    payloads = [orjson.dumps(kind.make(dice)) for _ in range(SAMPLES)]
    n = 0
    while True:
        n += 1
        yield Event(b"import-42", b"%d-0" % (1_795_231_360_001 + n), n, kind.type, payloads[n % SAMPLES])


class Nowhere:
    """A transport that accepts all data and drops it."""

    def __init__(self) -> None:
        self.write = deque[bytes](maxlen=1).append

    def set_protocol(self, protocol: object) -> None:
        pass


class NoReads:
    """A loader that never reads: the ring buffer has everything that is needed."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


TERMS = StreamPolicy(15, 60, lambda: 3600, lambda: 2000, time.monotonic, lambda *_: cast(Any, None), lambda *_: None)


def watched(subscribers: int, variant: str) -> Channel:
    """Return a channel with this number of live subscriptions."""
    channel = Channel("import-42", cast(Loader, NoReads()), RingLimits(16, 1 << 20))
    channel.loaded_with([])
    for _ in range(subscribers):
        subscription = Subscription(channel, Delivery(), TERMS)
        channel.add(subscription)
        subscription.begin(0, b"0-0")
        connection = Connection(cast(Any, Nowhere()), set())
        if variant == AS_IT_IS:
            subscription.attach(ChunkedOutlet(subscription, connection))
        else:
            subscription.attach(GzipOutlet(subscription, connection, OVER[variant]))
    return channel


class Key(NamedTuple):
    kind: Kind
    subscribers: int
    variant: str


def us_per_event(key: Key, seconds: float) -> float:
    channel, feed = watched(key.subscribers, key.variant), events(key.kind)
    some = max(1, 2_000 // key.subscribers)
    done, spent, until = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        batches = [[next(feed)] for _ in range(some)]
        began = time.process_time()
        for batch in batches:
            channel.accept(batch)
        spent += time.process_time() - began
        done += some
    return spent / done * 1e6


def wire_bytes(kind: Kind) -> dict[str, float]:
    """Return the average size of an event on the wire, including chunk framing."""
    feed = events(kind)
    frames = [make_frame(next(feed)) for _ in range(SAMPLES)]
    found = {"text": sum(len(frame.wire) for frame in frames), AS_IT_IS: sum(len(CHUNKED.encode([f])) for f in frames)}
    for variant, over in OVER.items():
        for frame in frames:
            frame.packed = None
        found[variant] = sum(len(chunked_gzip(over).encode([frame]).data) for frame in frames)
    return {name: total / SAMPLES for name, total in found.items()}


def tabulate(given: argparse.Namespace, redis: PrivateRedis, times: dict[Key, list[float]]) -> None:
    table = Table("event", "text", "plain", "gzip", "saved %", "subscribers", *OVER_COLUMNS)
    figures: dict[str, Any] = {}
    for kind in KINDS:
        sizes = wire_bytes(kind)
        saved = 100 * (1 - sizes[DEFLATED] / sizes[AS_IT_IS])
        texts = [kind.name, *(f"{sizes[name]:.0f}" for name in ("text", AS_IT_IS, DEFLATED)), f"{saved:.0f}"]
        figures[kind.name] = {"bytes": {name: round(size, 1) for name, size in sizes.items()}}
        for subscribers in SUBSCRIBERS:
            spreads = {v: Spread.of(times[Key(kind, subscribers, v)]) for v in (AS_IT_IS, *OVER)}
            more = {v: (spreads[v].median - spreads[AS_IT_IS].median) / subscribers for v in OVER}
            cells = [f"{spreads[v].median:.1f}" for v in (AS_IT_IS, *OVER)] + [f"{more[v]:.2f}" for v in OVER]
            table.add_row(*texts, str(subscribers), *cells)
            texts = [""] * 5
            figures[kind.name][subscribers] = {v: spread.json() for v, spread in spreads.items()}
    report("compression", redis, given, table, {"us_per_event": figures})


OVER_COLUMNS = ("us/event: plain", "stored", "deflated", "extra per delivery: stored", "deflated")


def main() -> int:
    given = read_options(options(__doc__, rounds=5, seconds=0.5))
    times: dict[Key, list[float]] = {}
    cores = Cores.split()
    pin(cores.measured)
    keys = [Key(kind, n, variant) for kind in KINDS for n in SUBSCRIBERS for variant in (AS_IT_IS, *OVER)]
    with PrivateRedis(cores.others) as redis:  # used only to report its version
        for key in alternating(keys, given.rounds):
            times.setdefault(key, []).append(us_per_event(key, given.seconds))
            note(f"{key.kind.name}, {key.subscribers}, {key.variant}: {times[key][-1]:.1f} us per event")
        tabulate(given, redis, times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
