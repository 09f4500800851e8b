"""Reads operations out of Redis, with all that is kept of their events."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from importlib.metadata import version
from typing import Any, NamedTuple

from progress_broker.errors import Gone, NotFound, StorageUnavailable
from progress_broker.model.operation import TERMINAL, is_id
from progress_broker.model.position import is_canonical, order
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.queries.fields import write_filters
from progress_broker.queries.filters import Filters
from progress_broker.queries.walk import walk
from progress_broker.storage.foreign import readable
from progress_broker.storage.lanes import shown as lanes_shown
from progress_broker.storage.scripts import SCHEMA
from progress_broker.transfer.ahead import read_ahead
from progress_broker.transfer.format import ExportedEvent, ExportedOperation, ExportHead

FIRST = 100
"""How many events of an operation are read with its state."""
_AT_ONCE = 4
"""How many operations are read ahead."""
_LEAST, _MOST, _BYTES = 10, 500, 512 * 1024
"""How many events are read at once after that, and about how many bytes: Redis does nothing else meanwhile."""
_POINTS = 500
"""More points than a curve has."""
_ATTEMPTS = 3
_DIGITS = 15
_SCHEMA = str(SCHEMA).encode()
_ENDS = frozenset(status.value.encode() for status in TERMINAL)

Events = list[ExportedEvent]


def head_of(now: datetime, prefix: str, filters: Filters) -> ExportHead:
    """Return the head of an export of what matches in a Redis, at a time by its clock."""
    query: dict[str, list[str]] = {}
    for name, text in write_filters(filters):
        query.setdefault(name, []).append(text)
    at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return ExportHead(at, version("progress-broker"), SCHEMA, prefix, query)


class RedisSource:
    """The operations of a Redis that match filters."""

    def __init__(self, store: Store, filters: Filters) -> None:
        self._store, self._filters = store, filters

    async def head(self) -> ExportHead:
        """Return the head of an export of this Redis."""
        return head_of(await self._store.now(), self._store.keyspace.prefix, self._filters)

    async def operations(self) -> "AsyncGenerator[RedisCopy]":
        """Yield the operations that match, lane by lane in the order of their creation."""
        async with aclosing(read_ahead(self._groups())) as groups:
            async for group in groups:
                for copy in group:
                    yield copy

    async def _groups(self) -> "AsyncGenerator[list[RedisCopy]]":
        async with aclosing(ids_of(self._store, self._filters)) as parts:
            async for ids in parts:
                for at in range(0, len(ids), _AT_ONCE):
                    yield await read_each(self._store, ids[at : at + _AT_ONCE])


async def ids_of(store: Store, filters: Filters) -> AsyncGenerator[Sequence[str]]:
    """Yield the ids of what matches; raise `StorageUnavailable` at the end if lanes could not be reached."""
    async for part in walk(store, filters):
        yield [operation.id for operation in part.operations]
        away = part.lanes_away
    if away:
        raise StorageUnavailable(f"operations are missing: {lanes_shown(away)} can't be reached now")


class _First(NamedTuple):
    """The first part of each stream of an operation."""

    log: Events
    kept: Events
    curve: Events
    log_ends: bool
    kept_ends: bool


class RedisCopy:
    """An operation as it was at one moment, and its events up to then."""

    def __init__(self, store: Store, operation: ExportedOperation, first: _First) -> None:
        self.operation = operation
        self._store, self._keys = store, store.keyspace.operation(operation.id)
        self._first = first._replace(kept=self._before_log(first.kept), curve=self._before_log(first.curve))

    async def events(self) -> AsyncGenerator[Sequence[ExportedEvent]]:
        """Yield the events in parts. Raises `Gone` if the operation was deleted or created again meanwhile."""
        # Of one that goes on, the log moves to the older events meanwhile: it is read before them.
        done = self.operation.fields.get(b"status") in _ENDS
        window = [] if done else [part async for part in self._log()]
        async with aclosing(self._older()) as older:
            async for part in older:
                yield part
        if done:
            async with aclosing(read_ahead(self._log())) as log:
                async for part in log:
                    yield part
        for part in window:
            yield part
        await self._check()

    async def _log(self) -> AsyncGenerator[Events]:
        """Yield the events of the log, up to those of the state."""
        n, last = self.operation.n, order(self.operation.position)
        part, ends = self._first.log, self._first.log_ends
        while part:
            if part[-1].n > n or order(part[-1].position) > last:
                part, ends = [event for event in part if event.n <= n and order(event.position) <= last], True
            if part:
                yield part
            if ends:
                return
            count = _fitting(part)
            entries = await self._range(self._keys.log, part[-1].position, count)
            part, ends = read_entries(entries), len(entries) < count

    async def _older(self) -> AsyncGenerator[Events]:
        """Yield the older events, of two streams in one order."""
        kept, curve, ends = self._first.kept, self._first.curve, self._first.kept_ends
        while kept or curve:
            split = len(curve) if ends or not kept else sum(event.n < kept[-1].n for event in curve)
            yield sorted((*kept, *curve[:split]))
            if ends or not kept:
                return
            curve, count = curve[split:], _fitting(kept)
            entries = await self._range(self._keys.kept, kept[-1].position, count)
            kept, ends = self._before_log(read_entries(entries)), len(entries) < count

    async def _range(self, key: str, after: bytes, count: int) -> list[Any]:
        with storage_errors():
            entries: list[Any] = await self._store.connections.commands.xrange(key, min=b"(" + after, count=count)
        return entries

    def _before_log(self, events: Events) -> Events:
        """Return those that were older events when the state was read: others have moved there since."""
        return [event for event in events if event.n < self.operation.first_n]

    async def _check(self) -> None:
        """Raise `Gone` if what was read may be of another operation of this id, or of none."""
        with storage_errors():
            created, n = await self._store.connections.commands.hmget(self._keys.snapshot, ("created", "n"))
        before = self.operation.fields
        if created != before[b"created"] or not (n or b"").isdigit() or int(n) < self.operation.n:
            raise Gone(f"operation {self.operation.id} was deleted while it was read")


async def read_each(store: Store, ids: Iterable[str]) -> list[RedisCopy]:
    """Return those of these operations that exist, each with the first part of its events."""
    found: dict[str, RedisCopy] = {}
    wanted = [id for id in ids if is_id(id)]
    due = wanted
    for attempt in range(_ATTEMPTS):
        again = []
        for id, state, first in await _read_states(store, due):
            read = _operation(id, state, first)
            if read is None:
                continue
            operation, usable = read
            if not usable and attempt < _ATTEMPTS - 1:  # events were moved between two reads; or somebody trimmed them
                again.append(id)
            else:
                found[id] = RedisCopy(store, operation, first if usable else first._replace(kept=[], curve=[]))
        due = again
        if not due:
            break
    return [found[id] for id in wanted if id in found]


async def read_one(store: Store, id: str) -> RedisCopy:
    """Return an operation; raise `NotFound` or `Gone`."""
    for copy in await read_each(store, [id]):
        return copy
    await store.get(id)
    raise NotFound(f"operation {id} can't be read: another program overwrote it in Redis")


async def _read_states(store: Store, ids: Sequence[str]) -> list[tuple[str, Mapping[bytes, bytes] | None, _First]]:
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for id in ids:
            keys = store.keyspace.operation(id)
            pipeline.hgetall(keys.snapshot)
            pipeline.xrange(keys.log, count=FIRST)
            pipeline.xrange(keys.kept, count=FIRST)
            pipeline.xrange(keys.curve, count=_POINTS)
        with storage_errors():
            replies = iter(readable(await pipeline.execute(raise_on_error=False)))
    read = []
    for id in ids:
        state, log, kept, curve = (next(replies) for _ in range(4))
        first = _First(
            read_entries(log or ()),
            read_entries(kept or ()),
            read_entries(curve or ()),
            len(log or ()) < FIRST,
            len(kept or ()) < FIRST,
        )
        read.append((id, state, first))
    return read


def _operation(id: str, state: Mapping[bytes, bytes] | None, first: _First) -> tuple[ExportedOperation, bool] | None:
    """Return an operation, and whether what was read fits together; None if it does not exist."""
    if not state or b"gone" in state or state.get(b"schema") != _SCHEMA or b"spec" not in state:
        return None
    n, position = state.get(b"n", b""), state.get(b"position", b"")
    if not n.isdigit() or not is_canonical(position) or not state.get(b"created", b"").isdigit():
        return None
    archived = state.get(b"archived", b"0")
    oldest = first.log[0].n if first.log else int(n) + 1
    fits = archived.isdigit() and oldest == int(archived) + 1
    return ExportedOperation(id, state, state.get(b"indexes", b""), int(n), oldest, position), fits


def read_entries(entries: Iterable[Any]) -> Events:
    """Return the events in the entries of an operation's streams, without those that another program wrote."""
    events: Events = []
    for position, fields in entries:
        # The layouts that the scripts write. To unpack them costs half as much as to build a dict.
        if len(fields) == 10 and fields[6] == b"p" and fields[8] == b"s":
            first, n, second, kind, third, data, _, producer, _, seq = fields
        elif len(fields) == 6:
            first, n, second, kind, third, data = fields
            producer = seq = b""
        else:
            first = second = third = b""
        if not (first == b"n" and second == b"t" and third == b"d"):
            pairs = dict(zip(fields[::2], fields[1::2], strict=False))
            n, kind, data, producer, seq = (pairs.get(name, b"") for name in (b"n", b"t", b"d", b"p", b"s"))
        if n.isdigit() and len(n) <= _DIGITS and kind:
            events.append(ExportedEvent(int(n), position, kind, data, producer, seq))
    return events


def _fitting(part: Sequence[ExportedEvent]) -> int:
    """Return how many events to read next, by the size of those before."""
    size = sum(len(event.data) for event in part) // len(part) if part else 1
    return max(_LEAST, min(_MOST, _BYTES // max(1, size)))
