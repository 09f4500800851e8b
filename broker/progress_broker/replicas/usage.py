"""What takes room in Redis, by kind and status: of a random sample of operations, or of all of them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import redis.exceptions
from pydantic import BaseModel

from progress_broker.errors import StorageUnavailable
from progress_broker.model.operation import Operation
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.loading import load_each
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.walk import walk
from progress_broker.replicas.figures import MOST_LOOKED
from progress_broker.storage.lanes import FanOut

_LONGEST = 20
_SIZED = 200
"""How many operations of a sample are asked for their size in memory."""


class Share(BaseModel):
    """Operations of a kind and status, as far as they were looked at."""

    kind: str
    status: str
    operations: int
    events: int
    bytes: int | None
    """About how much memory they take; None if Redis does not tell (`MEMORY USAGE`)."""


class LongOperation(BaseModel):
    """An operation with many events."""

    id: str
    kind: str
    status: str
    events: int


class Storage(BaseModel):
    """What takes room, as far as it was looked at."""

    looked: int
    operations: int
    """How many there are."""
    shares: list[Share]
    longest: list[LongOperation]
    lanes_away: list[int] = []
    """The lanes that could not be reached, and are missing here."""


async def read_storage(store: Store, sample: int) -> Storage:
    """Return what takes room, from a random sample of operations. Raises `StorageUnavailable`."""
    most = max(1, min(sample, MOST_LOOKED) // store.keyspace.lanes)

    async def read(lanes: Sequence[int]) -> list[tuple[int, list[str]]]:
        async with store.connections.commands.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                index = store.keyspace.lane(lane).index
                pipeline.zcard(index)
                pipeline.zrandmember(index, most)
            with storage_errors():
                replies: list[Any] = await pipeline.execute()
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [(count, [id.decode("utf-8", "replace") for id in ids or ()]) for count, ids in pairs]

    lanes = FanOut(store.connections, store.keyspace)
    found = (await lanes.ask(read)).values()
    ids = [id for _, names in found for id in names]
    loaded = [it[0] for it in await load_each(store.connections, store.keyspace, lanes, ids) if it is not None]
    usage = _Usage()
    usage.add(loaded, await _sizes(store, loaded[:_SIZED]))
    return usage.storage(sum(count for count, _ in found), sorted(lanes.away))


async def read_all_storage(
    store: Store, *, rps: float, tell: Callable[[int], None], sleep: Callable[[float], Any] = asyncio.sleep
) -> Storage:
    """Return what all operations take; at most `rps` of them are looked at per second.

    `tell` is called with how many were looked at so far. Raises `StorageUnavailable` if no lane can be reached.
    """
    usage, away, began = _Usage(), list[int](), time.monotonic()
    async for part in walk(store, Filters()):
        usage.add(part.operations, await _sizes(store, part.operations))
        away = list(part.lanes_away)
        tell(usage.looked)
        ahead_s = usage.looked / rps - (time.monotonic() - began)
        if part.operations and ahead_s > 0:
            await sleep(ahead_s)
    return usage.storage(usage.looked, away)


@dataclass(slots=True)
class _Sum:
    operations: int = 0
    events: int = 0
    sized_events: int = 0
    """The events of those whose size is known."""
    bytes: int = 0
    """What those take."""


class _Usage:
    """Adds up what operations take."""

    def __init__(self) -> None:
        self.looked = 0
        self._sums: defaultdict[tuple[str, str], _Sum] = defaultdict(_Sum)
        self._longest: list[Operation] = []
        self._sized = False

    def add(self, operations: Sequence[Operation], sizes: dict[str, int]) -> None:
        """Add operations. `sizes` has the bytes of those that are known."""
        self.looked += len(operations)
        self._sized = self._sized or bool(sizes)
        self._longest = nlargest(_LONGEST, [*self._longest, *operations], key=lambda it: it.events)
        for operation in operations:
            of = self._sums[operation.kind, operation.status]
            of.operations += 1
            of.events += operation.events
            if operation.id in sizes:
                of.sized_events += operation.events
                of.bytes += sizes[operation.id]

    def storage(self, operations: int, lanes_away: list[int]) -> Storage:
        """Return the sums. Of operations whose size is not known, each event counts as the mean of the others'."""
        sized = sum(it.sized_events for it in self._sums.values())
        mean = sum(it.bytes for it in self._sums.values()) / max(1, sized)

        def share(kind: str, status: str, it: _Sum) -> Share:
            size = round(it.bytes + (it.events - it.sized_events) * mean) if self._sized else None
            return Share(kind=kind, status=status, operations=it.operations, events=it.events, bytes=size)

        shares = [share(*key, it) for key, it in self._sums.items()]
        return Storage(
            looked=self.looked,
            operations=operations,
            shares=sorted(shares, key=lambda it: -it.events),
            longest=[LongOperation(id=it.id, kind=it.kind, status=it.status, events=it.events) for it in self._longest],
            lanes_away=lanes_away,
        )


async def _sizes(store: Store, operations: Sequence[Operation]) -> dict[str, int]:
    """Return how much memory operations take, as Redis tells; nothing if this user may not ask."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for operation in operations:
            keys = store.keyspace.operation(operation.id)
            for key in (keys.snapshot, keys.log, keys.kept, keys.curve):
                pipeline.memory_usage(key)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except (redis.exceptions.RedisError, OSError) as error:
            raise StorageUnavailable(f"Redis did not tell how much memory operations take: {error}") from None
    sizes = {}
    for at, operation in enumerate(operations):
        parts = replies[4 * at : 4 * at + 4]
        if not any(isinstance(part, Exception) for part in parts):
            sizes[operation.id] = sum(part or 0 for part in parts)
    return sizes
