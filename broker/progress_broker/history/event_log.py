"""Reads operations' logs: from a position, from either end, and while they grow."""

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from progress_broker.history.losses import Lost, shared_up_to
from progress_broker.history.older_events import Kept, read_kept, spread, whole_curve
from progress_broker.model.event import END, Event, LastEvent, read_entry, read_events
from progress_broker.model.position import START, a_minute_before, order, parse
from progress_broker.nodes.pool_settings import BLOCK_MS
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import SwallowedCancels

UNREADABLE = LastEvent(-1, b"")
"""The `LastEvent` of an operation whose data another program has overwritten."""


class HistoryLost(Exception):
    """A log can't be read on from a position. Its text is the reason: `trimmed` or `lost`."""

    def __init__(self, reason: str, shared: LastEvent | None) -> None:
        super().__init__(reason)
        self.shared = shared
        """The last event that the reader and the log share. None: not all events after it are kept."""


PART = 100
"""How many events are read at once: Redis does nothing else meanwhile."""
MAX_PAGE_BYTES = 4 << 20
"""A page ends at about this size of its events' data, so that large events do not fill the memory."""
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


@dataclass(frozen=True, slots=True)
class Tail:
    """The last events of an operation's log, oldest first."""

    events: list[Event]
    history_length: int | None
    """About how many events are kept of the operation; None if that was not asked, or if it does not exist."""


async def tail(store: Store, operation: str, count: int, *, with_length: bool = False) -> Tail:
    """Return at most `count` of the last events of an operation's log."""
    keys = store.keyspace.operation(operation)
    if not with_length:
        newest_first = await _entries(store.connections.commands.xrevrange(keys.log, count=count))
        return Tail(read_events(operation, reversed(newest_first)), None)
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        pipeline.xrevrange(keys.log, count=count)
        pipeline.hget(keys.snapshot, "history_length")
        with storage_errors():
            entries, length = await pipeline.execute(raise_on_error=False)
            if isinstance(entries, Exception):
                raise entries
    known = isinstance(length, bytes) and length.isdigit() and len(length) < _DIGITS
    return Tail(read_events(operation, reversed(entries)), int(length) if known else None)


async def after(store: Store, operation: str, position: str, count: int) -> Page:
    """Return at most `count` kept events that follow a position in an operation's log: fewer if they are large.

    It is never without events if there are any.
    `progress` events that are no longer kept may be missing among them. If other events would be missing, or if the
    operation never had the position, the page is empty and has a `reset`: `trimmed` or `lost`. A position between old
    `progress` events can't be checked: it may have been one of those that are no longer kept. `0-0` is before the first
    event.
    """
    page, more = await _part_after(store, operation, position, min(count, PART))
    await _fill(store, operation, page.events, count, more=more)
    return page


async def _fill(store: Store, operation: str, events: list[Event], count: int, *, more: bool) -> None:
    """Add the events that follow, part by part, until there are `count`, or enough bytes.

    Each part is read like one for a client that has the events before it, so it does not matter which of them a script
    moves meanwhile.
    """
    size = sum(len(event.data) for event in events)
    while more and events and len(events) < count and size < MAX_PAGE_BYTES:
        position = events[-1].position.decode()
        part, more = await _kept_after(store, operation, position, min(count - len(events), PART))
        if part.reset is not None or not part.events:
            return
        events += part.events
        size += sum(len(event.data) for event in part.events)


async def _part_after(store: Store, operation: str, position: str, count: int) -> tuple[Page, bool]:
    """Return a part of a page, and whether more may follow it."""
    key = store.keyspace.operation(operation).log
    if position != START:
        entries = await _entries(store.connections.commands.xrange(key, min=position, count=count + 1))
        if entries and entries[0][0] == position.encode():
            standing = await _standing(store, operation, entries[0])
            return Page(read_events(operation, entries[1:]), standing), len(entries) > count
    return await _kept_after(store, operation, position, count)


async def _kept_after(store: Store, operation: str, position: str, count: int) -> tuple[Page, bool]:
    """Return a part of a page, and whether more may follow it, for a position that is perhaps not in the log."""
    at = position.encode()
    kept = await read_kept(store, operation, at, count + 1)
    if kept.oldest is None:
        return Page([], reset=None if position == START else "lost"), False
    if kept.events and kept.events[0].position == at:
        found, following = kept.events[0], kept.events[1:]
    elif position == START or kept.had(at):
        found, following = None, kept.events[:count]
    else:
        return Page([], reset="lost"), False
    if not kept.has_all_after(at):
        return Page([], reset="trimmed"), False
    return Page(list(following), found), kept.more or len(kept.events) > count


async def last_before(store: Store, operation: str, position: str) -> LastEvent | None:
    """Return the last kept event at or before a position, which may lie between events: number 0 is before the first.

    None means that events after the position are missing, other than `progress`.
    """
    key, at = store.keyspace.operation(operation).log, position.encode()
    before = await _entries(store.connections.commands.xrevrange(key, max=position, count=_LOOKED_BACK))
    for event in read_events(operation, before):
        return LastEvent(event.n, event.position)
    found = await read_kept(store, operation, at, 1)
    if found.oldest is None or not found.has_all_after(at):
        return None
    older = found.events[0] if found.events and found.events[0].position == at else found.before
    return LastEvent(older.n, older.position) if older else LastEvent(0, START.encode())


async def last_shared(store: Store, operation: str, lost: Lost) -> LastEvent | None:
    """Return the last event that the log shares with a reader that has lost a position: number 0 is before the first.

    None means that events after it are missing, other than `progress`. Events that are older than the position may be
    others than the reader's (see `losses`). If no replica noted up to where both are the same, the reader goes on
    before all that is kept, or, if it follows a lane, a minute before the position.
    """
    bound = lost.position
    if not lost.certain:
        keys = store.keyspace.operation(operation)
        if await _entries(store.connections.commands.xrange(keys.log, min=bound, max=bound)):
            pass  # the log ends there
        elif (shared := await shared_up_to(store, store.keyspace.lane_of(operation), bound)) is not None:
            bound = shared
        elif lost.of_lane:
            bound = a_minute_before(bound)
        else:
            return _before_all(await read_kept(store, operation, START.encode(), 1), bound)
    return await last_before(store, operation, bound.decode())


def _before_all(found: Kept, position: bytes) -> LastEvent | None:
    """Return where to go on to be told all that is kept; None if all of it is newer than the position.

    If the first events are not kept, that is the first one after which all are.
    """
    whole = found.first or found.oldest
    if whole is None:
        return None
    if whole.n == 1:
        return LastEvent(0, START.encode())
    return LastEvent(whole.n, whole.position) if order(whole.position) <= order(position) else None


async def kept(store: Store, operation: str, count: int) -> list[Event]:
    """Return at most `count` of the oldest events that are still kept of an operation: fewer if they are large.

    All that followed the last of them is kept, except `progress`, so a reader may go on there. Points of the curve that
    are older than every other event that is kept are therefore all among them, or, if they are too many, some of them.
    """
    read = await read_kept(store, operation, START.encode(), min(count, PART))
    events = list(read.events)
    while read.more and events and not read.has_all_after(events[-1].position):
        last = events[-1].position
        read = await read_kept(store, operation, last, PART + 1)
        events += [event for event in read.events if event.position != last]
    older = [event for event in events if not read.has_all_after(event.position)]
    others = events[len(older) :]
    points = spread(older, count - len(others[:1]))
    events = [*points, *others[: count - len(points)]]
    await _fill(store, operation, events, count, more=read.more)
    return events


async def follow(store: Store, operation: str, position: str) -> AsyncGenerator[Event]:
    """Yield the kept events that follow a position in an operation's log, up to its `end`.

    `0-0` begins with the oldest kept event. It waits with a blocking XREAD, so it occupies one connection: it is for
    single readers, such as the command line; replicas read the feeds. Raises `NotFound` or `Gone` when the operation is
    removed, and `HistoryLost` when events after the position can't be read.
    """
    key, yielded, seen = store.keyspace.operation(operation).log, position, position
    cancels = SwallowedCancels()
    while True:
        cancels.check()
        if yielded == START:
            events = await kept(store, operation, whole_curve(store.settings.page_length))
        else:
            page = await after(store, operation, yielded, store.settings.page_length)
            if page.reset is not None:
                shared = (
                    None if page.reset == "trimmed" else await last_shared(store, operation, Lost(yielded.encode()))
                )
                raise HistoryLost(page.reset, shared)
            events = page.events
        for event in events:
            yield event
            yielded = event.position.decode()
            if event.type == END:
                return
        if events:
            continue
        cancels.check()
        seen = max(seen, yielded, key=parse)
        with storage_errors():
            client = await store.connections.blocking(key)
            reply: Any = await client.execute_command("XREAD", "BLOCK", BLOCK_MS, "STREAMS", key, seen)
        if reply:
            seen = reply[0][1][-1][0].decode()  # it may be an entry that another program wrote
            continue
        now = await store.get(operation)
        if parse(now.position) < parse(yielded):  # new events would be skipped until they pass this position
            raise HistoryLost("lost", await last_shared(store, operation, Lost(yielded.encode())))
        if now.done and parse(now.position) <= parse(seen):
            return


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
    """Return at most `count` kept events of an operation after a position of its lane, and at most `PART`.

    It is `trimmed` if events after `since`, other than `progress`, may not be kept. `since` is the position or an older
    one.
    """
    key, count = store.keyspace.operation(operation).log, min(count, PART)
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        pipeline.xrevrange(key, count=1)
        pipeline.xrange(key, min=b"(" + position, count=count)
        pipeline.xrange(key, count=1)
        with storage_errors():
            last, following, oldest = [read_events(operation, entries) for entries in await pipeline.execute()]
    newest = last[0] if last else None
    if not oldest or oldest[0].n == 1 or order(oldest[0].position) <= order(since):
        return EventsAfter(following, newest, trimmed=False)
    found = await read_kept(store, operation, position, count + 1)
    events = [event for event in found.events if event.position != position][:count]
    return EventsAfter(events, newest, trimmed=not found.has_all_after(since))


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
