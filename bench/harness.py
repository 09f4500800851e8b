"""Shared by all benchmarks: options, alternating rounds, medians, the table, and the line of JSON at the end."""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.processes import PrivateRedis
from progress_broker.settings import Settings
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.schema import meta_call, read_meta
from progress_workers.transport.over_redis.pipeline import run_pipeline

T = TypeVar("T")


def options(description: str | None, *, rounds: int, seconds: float) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--rounds", type=int, default=None, help=f"number of rounds; each measures everything once ({rounds})"
    )
    parser.add_argument("--seconds", type=float, default=None, help=f"seconds per measurement ({seconds:g})")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, only to check that it works; the figures mean nothing"
    )
    parser.set_defaults(default_rounds=rounds, default_seconds=seconds)
    return parser


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else given.default_rounds)
    given.seconds = given.seconds or (min(1.5, given.default_seconds) if given.quick else given.default_seconds)
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds must be above zero")
    for name in [name for name in os.environ if name.startswith("PROGRESS_")]:
        del os.environ[name]  # measure with the default settings
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # exit normally, so that child processes are stopped
    return given


def settings_for(url: str) -> Settings:
    return Settings(redis_url=url, _env_file=None)


def keyspace_of(client: Any, settings: Settings) -> Keyspace:
    (reply,) = run_pipeline(client, [meta_call(settings)])
    return read_meta(reply, settings)


class Spread(NamedTuple):
    """The median, the lowest and the highest value of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"

    def json(self, digits: int = 3) -> dict[str, float]:
        return {name: round(value, digits) for name, value in self._asdict().items()}


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """The ratio within each round: a temporary disturbance of the machine affects both sides of it."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def alternating(variants: Sequence[T], rounds: int) -> Iterator[T]:
    """Yield each variant once per round, every other round in reverse, so that no variant always comes first."""
    for number in range(rounds):
        yield from variants if number % 2 == 0 else variants[::-1]


_began = time.monotonic()


def note(text: str) -> None:
    print(f"[{time.monotonic() - _began:6.1f} s] {text}", file=sys.stderr, flush=True)


def report(
    name: str, redis: PrivateRedis | None, given: argparse.Namespace, table: Table, figures: dict[str, Any]
) -> None:
    """Print the table, and as the last line all results as JSON."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(table)
    told = {
        "benchmark": name,
        "command": machine.command(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": given.rounds,
        "seconds": given.seconds,
        **figures,
        "machine": machine.facts({} if redis is None else redis.client.info()),
    }
    print(json.dumps(told, separators=(",", ":")), flush=True)
