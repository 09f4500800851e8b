"""Reading operations' logs: from a position, from either end, and as they grow."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from progress_broker.model.event import Event, read_entry, read_events
from progress_broker.model.position import START, order, parse
from progress_broker.operations.store import Store
from progress_broker.storage.connections import BLOCK_MS
from progress_broker.storage.redis_errors import storage_errors


class Stand(NamedTuple):
    """Where an operation stands in storage: how many events it has, and where the last one is."""

    n: int
    position: bytes


UNREADABLE = Stand(-1, b"")
"""That of an operation into which a foreign hand has written something else."""


class HistoryLost(Exception):
    """Storage no longer has what was read of a log."""


_DIGITS = 16
_LOOKED_BACK = 100


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of an operation's log after a position, oldest first."""

    events: list[Event]
    at: Event | None = None
    """The event at the position itself, if there is one."""
    reset: str | None = None
    """Why the log can't be read from the position: `trimmed` or `lost`."""


async def tail(store: Store, operation: str, count: int) -> list[Event]:
    """Return the last events of an operation's log, oldest first, `count` at most."""
    key = store.keyspace.operation(operation).log
    return read_events(operation, reversed(await _entries(store.connections.commands.xrevrange(key, count=count))))


async def after(store: Store, operation: str, position: str, count: int) -> Page:
    """Return what follows a position in an operation's log, `count` events at most.

    A position that the log does not hold is told as `trimmed` if it is older than what is kept, else as `lost`;
    then the page is empty. `0-0` is before everything, and `trimmed` if the first event is no longer kept.
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
    asked = parse(position)
    trimmed = bool(kept) and kept[0].n > 1 and asked < parse(kept[0].position.decode())
    return Page([], reset="trimmed" if trimmed else "lost")


async def kept(store: Store, operation: str, count: int) -> list[Event]:
    """Return the first events of an operation's log that are still kept, `count` at most."""
    key = store.keyspace.operation(operation).log
    return read_events(operation, await _entries(store.connections.commands.xrange(key, count=count)))


async def follow(store: Store, operation: str, position: str) -> AsyncIterator[Event]:
    """Yield what follows a position in an operation's log until its `end`, by a blocking XREAD of that log.

    For one reader with a connection to spare, such as the command line; replicas follow the feeds.
    Raises `NotFound` or `Gone` when the operation vanishes, and `HistoryLost` when it stands before the position.
    """
    key, told = store.keyspace.operation(operation).log, position
    client: Any = store.connections.for_blocking()
    while True:
        with storage_errors():
            reply: Any = await client.execute_command(
                "XREAD", "COUNT", store.settings.page_length, "BLOCK", BLOCK_MS, "STREAMS", key, position
            )
        if not reply:
            now = await store.get(operation)
            if parse(now.position) < parse(told):  # nothing after it would come for long
                raise HistoryLost(f"Redis no longer has the events of operation {operation} that were shown last")
            if now.done and parse(now.position) <= parse(position):
                return
            continue
        entries = reply[0][1]
        for event in read_events(operation, entries):
            yield event
            told = event.position.decode()
            if event.type == b"end":
                return
        position = entries[-1][0].decode()  # which may be one that can't be read


async def stands(store: Store, operations: Sequence[str]) -> list[Stand | None]:
    """Return where operations stand, None for one not there (or deleted), or `UNREADABLE`."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for operation in operations:
            pipeline.hmget(store.keyspace.operation(operation).snapshot, ("n", "position"))
        with storage_errors():
            return [_read_stand(state) for state in await pipeline.execute(raise_on_error=False)]


@dataclass(frozen=True, slots=True)
class Beyond:
    """What an operation's log holds after a position that need not be one of its own."""

    events: Sequence[Event]
    last: Event | None
    """The last event of all, if there is one."""
    trimmed: bool
    """Whether events may no longer be kept."""


async def beyond(store: Store, operation: str, position: bytes, count: int, since: bytes) -> Beyond:
    """Return what follows a position of an operation's lane in its log, `count` events at most.

    It is `trimmed` if events after `since` may no longer be kept, which is the position or an older one.
    """
    key = store.keyspace.operation(operation).log
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        pipeline.xrevrange(key, count=1)
        pipeline.xrange(key, min=b"(" + position, count=count)
        pipeline.xrange(key, count=1)
        with storage_errors():
            last, after, oldest = [read_events(operation, entries) for entries in await pipeline.execute()]
    trimmed = bool(oldest) and oldest[0].n > 1 and order(oldest[0].position) > order(since)
    return Beyond(after, last[0] if last else None, trimmed)


async def up_to(store: Store, places: Mapping[int, bytes]) -> list[tuple[bytes | None, int]]:
    """Return where the last entry up to a position stands in each of some lanes' feeds, if there is one, and how many
    entries the feed has."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for lane, position in places.items():
            feed = store.keyspace.lane(lane).feed
            pipeline.xrevrange(feed, max=position, count=1).xlen(feed)
        with storage_errors():
            replies = iter(await pipeline.execute())
    return [(entries[0][0] if entries else None, length) for entries, length in zip(replies, replies, strict=True)]


def _read_stand(state: Any) -> Stand | None:
    if not isinstance(state, list):
        return UNREADABLE
    n, position = state
    if n is None:
        return None
    return Stand(int(n), position or b"") if n.isdigit() and len(n) < _DIGITS else UNREADABLE


async def _entries(read: Awaitable[list[Any]]) -> list[Any]:
    with storage_errors():
        return await read


async def _standing(store: Store, operation: str, entry: Sequence[Any]) -> Event | None:
    """Return the event at an entry, or where that can't be read, the one before it, as if it were there."""
    event = read_entry(operation.encode(), entry)
    if event is not None and event.n > 0:
        return event
    key, at = store.keyspace.operation(operation).log, entry[0]
    before = await _entries(store.connections.commands.xrevrange(key, max=b"(" + at, count=_LOOKED_BACK))
    found = read_events(operation, before)
    return found[0]._replace(position=at) if found else None
