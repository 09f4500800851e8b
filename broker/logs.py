"""Reading operations' logs: from a position, from either end, and as they grow."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from broker import positions
from broker.connections import BLOCK_MS, storage_errors
from broker.events import Event, read_events
from broker.store import Store


class Stand(NamedTuple):
    """Where an operation stands in storage: how many events it has, and where the last one is."""

    n: int
    position: bytes


UNREADABLE = Stand(-1, b"")
"""That of an operation into which a foreign hand has written something else."""


class HistoryLost(Exception):
    """Storage no longer has what was read of a log."""


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
    with storage_errors():
        entries = await store.connections.commands.xrevrange(store.keyspace.operation(operation).log, count=count)
    return read_events(operation, reversed(entries))


async def after(store: Store, operation: str, position: str, count: int) -> Page:
    """Return what follows a position in an operation's log, `count` events at most.

    A position that the log does not hold is told as `trimmed` if it is older than what is kept, else as `lost`;
    then the page is empty. `0-0` is before everything, and `trimmed` if the first event is no longer kept.
    """
    key = store.keyspace.operation(operation).log
    with storage_errors():
        entries = await store.connections.commands.xrange(key, min=position, count=count + 1)
        if entries and entries[0][0] == position.encode():
            events = read_events(operation, entries)
            return Page(events[1:], events[0])
        first = entries if position == positions.START else await store.connections.commands.xrange(key, count=1)
    kept = read_events(operation, first)
    if position == positions.START:
        whole = not kept or kept[0].n == 1
        return Page(kept[:count]) if whole else Page([], reset="trimmed")
    asked = positions.parse(position)
    trimmed = bool(kept) and kept[0].n > 1 and asked < positions.parse(kept[0].position.decode())
    return Page([], reset="trimmed" if trimmed else "lost")


async def kept(store: Store, operation: str, count: int) -> list[Event]:
    """Return the first events of an operation's log that are still kept, `count` at most."""
    with storage_errors():
        entries = await store.connections.commands.xrange(store.keyspace.operation(operation).log, count=count)
    return read_events(operation, entries)


async def follow(store: Store, operation: str, position: str) -> AsyncIterator[Event]:
    """Yield what follows a position in an operation's log until its `end`, by a blocking XREAD of that log.

    For one reader with a connection to spare, such as the command line; replicas follow the feeds.
    Raises `NotFound` or `Gone` when the operation vanishes, and `HistoryLost` when it stands before the position.
    """
    key = store.keyspace.operation(operation).log
    client: Any = store.connections.for_blocking()
    while True:
        with storage_errors():
            reply: Any = await client.execute_command(
                "XREAD", "COUNT", store.settings.page_length, "BLOCK", BLOCK_MS, "STREAMS", key, position
            )
        if not reply:
            now = await store.get(operation)
            if now.done and now.position == position:
                return
            if positions.parse(now.position) < positions.parse(position):  # nothing after it would come for long
                raise HistoryLost(f"Redis no longer has the events of operation {operation} that were shown last")
            continue
        for event in read_events(operation, reply[0][1]):
            yield event
            position = event.position.decode()
            if event.type == b"end":
                return


async def stands(store: Store, operations: Sequence[str]) -> list[Stand | None]:
    """Return where operations stand, None for one not there (or deleted), or `UNREADABLE`."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for operation in operations:
            pipeline.hmget(store.keyspace.operation(operation).snapshot, ("n", "position"))
        with storage_errors():
            return [_read_stand(state) for state in await pipeline.execute(raise_on_error=False)]


def _read_stand(state: Any) -> Stand | None:
    if not isinstance(state, list):
        return UNREADABLE
    n, position = state
    if n is None:
        return None
    return Stand(int(n), position or b"") if n.isdigit() else UNREADABLE
