"""Events a second of an export, of an import and of a copy to another Redis, compared with a bare loop that only reads
the same events with XRANGE. Exits with 1 if an export is below 0.5, an import below 0.3, or a copy below 0.06, of it.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rich.table import Table

from bench.harness import Spread, alternating, note, options, ratios, read_options, report, settings_for
from bench.processes import Cores, PrivateRedis, pin
from progress_broker.copying.copier import Copier
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.transfer.endpoints import ImportOptions, Result
from progress_broker.transfer.files.chunk_source import ChunkSource
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.redis.source import RedisSource
from progress_broker.transfer.redis.target import RedisTarget

OPERATIONS, EVENTS = 100, 1_000
PART, CHUNK = 200, 256 * 1024
BOUNDS = {"export": 0.5, "import": 0.3, "copy": 0.06}
"""The least of the bare loop."""
VARIANTS = ("bare", *BOUNDS)
DATA = b'{"current":%d,"total":1000,"percent":%d,"message":"row %d","unit":"rows"}'


class Transfer:
    """Operations to move, and what moves them. Each measurement returns the events a second."""

    def __init__(self, store: Store, other: PrivateRedis, operations: int) -> None:
        self._store, self._other = store, other
        self._ids = [f"op-{number}" for number in range(operations)]
        self._text = b""

    async def fill(self) -> None:
        for id in self._ids:
            await self._store.create(NewOperation(id=id, kind="import", lease_s=None))
            for at in range(1, EVENTS + 1, PART):
                numbers = range(at, min(at + PART, EVENTS + 1))
                entries = [NewEvent("progress", DATA % (n, n // 10, n), "", "worker", n) for n in numbers]
                await self._store.publish(id, entries)
            await self._store.publish(id, [NewEvent("end", b'{"status":"succeeded"}', "succeeded")])
        self._text = b"".join([lines async for lines in self._lines()])

    async def measure(self, variant: str) -> float:
        calls: dict[str, Callable[[], Awaitable[int]]] = {
            "bare": self._bare,
            "export": self._export,
            "import": self._import,
            "copy": self._copy,
        }
        began = time.perf_counter()
        events = await calls[variant]()
        return events / (time.perf_counter() - began)

    async def forget(self) -> None:
        """Delete the operations, so that an import stores them."""
        for id in self._ids:
            keys = self._store.keyspace.operation(id)
            await self._store.connections.commands.delete(keys.snapshot, keys.log, keys.kept, keys.curve)

    def _lines(self) -> Any:
        return export_lines(RedisSource(self._store, Filters()))

    async def _bare(self) -> int:
        events = 0
        for id in self._ids:
            key, start = self._store.keyspace.operation(id).log, b"-"
            while entries := await self._store.connections.commands.xrange(key, min=start, count=PART):
                events += len(entries)
                start = b"(" + entries[-1][0]
        return events

    async def _export(self) -> int:
        size = 0
        async for lines in self._lines():
            size += len(lines)
        assert size > len(self._text) - 1_000
        return self._text.count(b'"k":"event"')

    async def _import(self) -> int:
        source = ChunkSource(_chunks(self._text))
        async for outcome in RedisTarget(self._store).store(source, ImportOptions()):
            assert outcome.result is Result.STORED, outcome
        return self._text.count(b'"k":"event"')

    async def _copy(self) -> int:
        self._other.client.flushall()
        async with await Store.open(settings_for(self._other.url)) as target:
            copier = Copier(self._store, target)
            async with copier.claimed():
                await copier.following(copier.caught_up())
        return self._text.count(b'"k":"event"')


async def _chunks(text: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(text), CHUNK):
        yield text[at : at + CHUNK]


async def measure(url: str, other: PrivateRedis, rounds: int, operations: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    async with await Store.open(settings_for(url)) as store:
        transfer = Transfer(store, other, operations)
        await transfer.fill()
        for variant in alternating(VARIANTS, rounds):
            if variant == "import":
                await transfer.forget()
            found[variant].append(await transfer.measure(variant))
            note(f"{variant}: {found[variant][-1]:,.0f} events/s")
    return found


def main() -> int:
    parser = options(__doc__, rounds=7, seconds=1)
    parser.add_argument("--no-check", action="store_true", help="do not exit with 1 if a bound is missed")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help=f"of {EVENTS} events each ({OPERATIONS})")
    given = read_options(parser)
    cores = Cores.split()
    with PrivateRedis(cores.others) as redis, PrivateRedis(cores.others) as other:
        pin(cores.measured)
        found = asyncio.run(measure(redis.url, other, given.rounds, 10 if given.quick else given.operations))
        shares = {variant: ratios(found[variant], found["bare"]) for variant in VARIANTS}
        table = Table(title=f"events a second, {EVENTS} an operation; bare: XRANGE of {PART} and nothing else")
        for column in ("", "events/s", "of bare"):
            table.add_column(column, justify="right" if column else "left")
        for variant in VARIANTS:
            table.add_row(variant, Spread.of(found[variant]).text(0), shares[variant].text(2))
        passed = all(shares[variant].median >= least for variant, least in BOUNDS.items())
        results = [
            {"case": variant, "events_s": Spread.of(found[variant]).json(0), "of_bare": shares[variant].json()}
            for variant in VARIANTS
        ]
        report("transfer", redis, given, table, {"results": results, "bounds": BOUNDS, "passed": passed})
    return 0 if passed or given.quick or given.no_check else 1


if __name__ == "__main__":
    sys.exit(main())
