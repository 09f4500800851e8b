"""Reads operations' logs: from a position, from either end, and while they grow."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from progress_broker.model.event import Event, read_entry, read_events
from progress_broker.model.position import START, order, parse
from progress_broker.operations.store import Store
from progress_broker.storage.connections import BLOCK_MS
from progress_broker.storage.redis_errors import storage_errors


class LastEvent(NamedTuple):
    """An operation's state in Redis: its number of events, and the position of the last one."""

    n: int
    position: bytes


UNREADABLE = LastEvent(-1, b"")
"""The `LastEvent` of an operation whose data another program has overwritten."""


class HistoryLost(Exception):
    """Redis no longer has events that were read from a log."""


_DIGITS = 16
_LOOKED_BACK = 100


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an operation's log after a position, oldest event first."""

    events: list[Event]
    at: Event | None = None
    """The event at the position itself, if there is one."""
    reset: str | None = None
    """Why the log can't be read from the position: `trimmed` or `lost`."""


async def tail(store: Store, operation: str, count: int) -> list[Event]:
    """Return at most `count` of the last events of an operation's log, oldest first."""
    key = store.keyspace.operation(operation).log
    return read_events(operation, reversed(await _entries(store.connections.commands.xrevrange(key, count=count))))


async def after(store: Store, operation: str, position: str, count: int) -> Page:
    """Return at most `count` events that follow a position in an operation's log.

    If the log does not have the position, the page is empty, and its `reset` is `trimmed` if the position is older than
    the kept events, else `lost`. `0-0` is before the first event; the `reset` is `trimmed` if that is no longer kept.
    """
    key = store.keyspace.operation(operation).log
    commands = store.connections.commands
    entries = await _entries(commands.xrange(key, min=position, count=count + 1))
    if entries and entries[0][0] == position.encode():
        return Page(read_events(operation, entries[1:]), await _standing(store, operation, entries[0]))
    first = entries if position == START else await _entries(commands.xrange(key, count=1))
    kept = read_events(operation, first)
    if position == START:
        whole = not kept or kept[0].n == 1
        return Page(kept[:count]) if whole else Page([], reset="trimmed")
    wanted = parse(position)
    trimmed = bool(kept) and kept[0].n > 1 and wanted < parse(kept[0].position.decode())
    return Page([], reset="trimmed" if trimmed else "lost")


async def kept(store: Store, operation: str, count: int) -> list[Event]:
    """Return at most `count` of the oldest events that an operation's log still has."""
    key = store.keyspace.operation(operation).log
    return read_events(operation, await _entries(store.connections.commands.xrange(key, count=count)))


async def follow(store: Store, operation: str, position: str) -> AsyncIterator[Event]:
    """Yield the events that follow a position in an operation's log, up to its `end`, with a blocking XREAD.

    It occupies one connection, so it is for single readers, such as the command line; replicas read the feeds. Raises
    `NotFound` or `Gone` when the operation is removed, and `HistoryLost` when its last event is before the position.
    """
    key, yielded = store.keyspace.operation(operation).log, position
    client: Any = store.connections.for_blocking()
    while True:
        with storage_errors():
            reply: Any = await client.execute_command(
                "XREAD", "COUNT", store.settings.page_length, "BLOCK", BLOCK_MS, "STREAMS", key, position
            )
        if not reply:
            now = await store.get(operation)
            if parse(now.position) < parse(yielded):  # new events would be skipped until they pass this position
                raise HistoryLost(f"Redis has lost the last events of operation {operation}, which were already shown")
            if now.done and parse(now.position) <= parse(position):
                return
            continue
        entries = reply[0][1]
        for event in read_events(operation, entries):
            yield event
            yielded = event.position.decode()
            if event.type == b"end":
                return
        position = entries[-1][0].decode()  # also of an entry that another program wrote


async def last_events(store: Store, operations: Sequence[str]) -> list[LastEvent | None]:
    """Return the state of each operation: None if it does not exist or was deleted, or `UNREADABLE`."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for operation in operations:
            pipeline.hmget(store.keyspace.operation(operation).snapshot, ("n", "position"))
        with storage_errors():
            return [_read_stand(state) for state in await pipeline.execute(raise_on_error=False)]


@dataclass(frozen=True, slots=True)
class EventsAfter:
    """An operation's events after a position, which may be that of another operation in its lane."""

    events: Sequence[Event]
    last: Event | None
    """The last event of the log, if there is one."""
    trimmed: bool
    """Whether some of the events may have been trimmed."""


async def after_lane_position(store: Store, operation: str, position: bytes, count: int, since: bytes) -> EventsAfter:
    """Return at most `count` events of an operation's log after a position of its lane.

    It is `trimmed` if events after `since` may have been trimmed. `since` is the position or an older one.
    """
    key = store.keyspace.operation(operation).log
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        pipeline.xrevrange(key, count=1)
        pipeline.xrange(key, min=b"(" + position, count=count)
        pipeline.xrange(key, count=1)
        with storage_errors():
            last, after, oldest = [read_events(operation, entries) for entries in await pipeline.execute()]
    trimmed = bool(oldest) and oldest[0].n > 1 and order(oldest[0].position) > order(since)
    return EventsAfter(after, last[0] if last else None, trimmed)


async def up_to(store: Store, places: Mapping[int, bytes]) -> list[tuple[bytes | None, int]]:
    """Return, for each lane, the position of the feed's last entry at or before a position (or None), and the feed's
    number of entries."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for lane, position in places.items():
            feed = store.keyspace.lane(lane).feed
            pipeline.xrevrange(feed, max=position, count=1).xlen(feed)
        with storage_errors():
            replies = iter(await pipeline.execute())
    return [(entries[0][0] if entries else None, length) for entries, length in zip(replies, replies, strict=True)]


def _read_stand(state: Any) -> LastEvent | None:
    if not isinstance(state, list):
        return UNREADABLE
    n, position = state
    if n is None:
        return None
    return LastEvent(int(n), position or b"") if n.isdigit() and len(n) < _DIGITS else UNREADABLE


async def _entries(read: Awaitable[list[Any]]) -> list[Any]:
    with storage_errors():
        return await read


async def _standing(store: Store, operation: str, entry: Sequence[Any]) -> Event | None:
    """Return the event in an entry. If another program wrote the entry, return the event before it instead."""
    event = read_entry(operation.encode(), entry)
    if event is not None and event.n > 0:
        return event
    key, at = store.keyspace.operation(operation).log, entry[0]
    before = await _entries(store.connections.commands.xrevrange(key, max=b"(" + at, count=_LOOKED_BACK))
    found = read_events(operation, before)
    return found[0]._replace(position=at) if found else None
