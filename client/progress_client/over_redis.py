"""The operations in Redis itself."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import NamedTuple, Self

from progress_broker.history import event_log
from progress_broker.history.event_log import HistoryLost
from progress_broker.history.losses import Lost, shared_up_to
from progress_broker.model import event as log_event
from progress_broker.model.entry import NewEvent
from progress_broker.model.event import LastEvent
from progress_broker.model.operation import NewOperation, NewSignal, Operation, PublishResult
from progress_broker.model.position import START, parse
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.settings import Settings
from progress_broker.stream.frames import make_frame, snapshot_frame
from progress_client.backend import FROM_START, Bookmark, Start, warn_if_partial
from progress_client.events import Event, read_event


class _State(NamedTuple):
    """An operation's state to begin with, and why its history is missing, if it is."""

    operation: Operation
    reset: str | None = None
    shared: LastEvent | None = None
    """The last event that the reader and the log share, from which it goes on."""


class OverRedis:
    """Reads and changes operations in Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect; raise `SetupError` if this Redis can't be used, `StorageUnavailable` if it may be later."""
        return cls(await Store.reach(settings))

    async def get(self, operation: str, *, list_children: bool = False) -> Operation:
        """Return an operation, on request with its first children."""
        return await self._store.get(operation, list_children=list_children)

    async def find(self, filters: Filters, limit: int, cursor: str | None) -> tuple[list[Operation], str | None]:
        """Return a page of operations and the cursor of the next one."""
        page = await find_page(self._store, filters, limit=limit, cursor=cursor)
        warn_if_partial(page.lanes_away)
        return page.operations, page.next_cursor

    async def create(self, new: NewOperation) -> Operation:
        """Create an operation."""
        return (await self._store.create(new))[0]

    async def publish(self, operation: str, entries: Sequence[NewEvent]) -> PublishResult:
        """Append events."""
        return await self._store.publish(operation, entries)

    async def cancel(self, operation: str, *, reason: str | None, by: str | None, force: bool) -> Operation:
        """Ask an operation's worker to stop."""
        return (await self._store.cancel(operation, reason=reason, by=by, force=force))[0]

    async def signal(self, operation: str, signal: NewSignal, *, by: str | None) -> None:
        """Send a signal."""
        await self._store.signal(operation, signal, by=by)

    async def now(self) -> datetime:
        """Return the time by Redis' clock."""
        return await self._store.now()

    async def follow(
        self, operation: str, start: Start, types: frozenset[str] | None
    ) -> AsyncGenerator[Event | Bookmark]:
        """Yield what follows the start. It occupies a connection meanwhile."""
        begins = await self._begin(operation, start)
        if begins is None:
            return
        after = position = START
        if isinstance(begins, Bookmark):
            position = begins.position
            if start.seen:
                yield begins
            elif start.position != FROM_START:
                after = start.position or START  # a time, if the log is read from before it
        wanted = None if types is None else frozenset(type.encode() for type in types) | {log_event.END}
        state = None if isinstance(begins, Bookmark) else begins
        while True:
            if state is not None:
                frame = snapshot_frame(*state)
                after, position = START, frame.position.decode()
                yield read_event(frame.envelope, position)
                if state.operation.done and frame.n == state.operation.events:
                    yield await self._end(state.operation)
                    return
            try:
                async with aclosing(event_log.follow(self._store, operation, position)) as following:
                    async for event in following:
                        position = event.position.decode()
                        if parse(position) <= parse(after):
                            continue
                        yield _told(event) if wanted is None or event.type in wanted else Bookmark(position)
                return
            except HistoryLost as lost:
                state = _State(await self._store.get(operation), str(lost), lost.shared)

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()

    async def _begin(self, operation: str, start: Start) -> Bookmark | _State | None:
        """Return the position or the state to go on from; None if the operation has ended at the position."""
        position = start.position
        if position is None:
            return _State(await self._store.get(operation))
        if position == FROM_START:
            await self._store.get(operation)  # the log of an operation that does not exist is only empty
            return Bookmark(START)
        page = await event_log.after(self._store, operation, position, 1)
        if page.reset is None:
            ended = page.at is not None and page.at.type == log_event.END
            return None if ended else Bookmark(position)
        if page.reset != "lost":
            return _State(await self._store.get(operation), page.reset)
        lost, lane = Lost(position.encode()), self._store.keyspace.lane_of(operation)
        if not start.seen and await shared_up_to(self._store, lane, lost.position) is None:
            # It may be any time, and not the position of an event: nothing is lost if the log reaches back to it.
            before = await event_log.last_before(self._store, operation, position)
            current = await self._store.get(operation)
            if before is not None and parse(position) < parse(current.position):
                return Bookmark(before.position.decode())
        shared = await event_log.last_shared(self._store, operation, lost)
        return _State(await self._store.get(operation), page.reset, shared)

    async def _end(self, snapshot: Operation) -> Event:
        """Return the end of an operation that has ended. If it is no longer in the log, the snapshot has it."""
        for event in (await event_log.tail(self._store, snapshot.id, 1)).events:
            if event.type == log_event.END:
                return _told(event)
        outcome = snapshot.model_dump_json(include={"status", "result", "error"}).encode()
        position = snapshot.position.encode()
        return _told(log_event.Event(snapshot.id.encode(), position, snapshot.events, log_event.END, outcome))


def _told(event: log_event.Event) -> Event:
    return read_event(make_frame(event).envelope, event.position.decode())
