"""Reads an operation's history from its newest event back."""

from dataclasses import dataclass

from progress_broker.history.event_log import MAX_PAGE_BYTES, PART
from progress_broker.model.event import Event, read_events
from progress_broker.model.position import order
from progress_broker.nodes.calls import Call
from progress_broker.operations.store import Store
from progress_broker.storage.scripts import KEPT

NEWEST = "+"
"""In place of a position: after the newest event."""


@dataclass(frozen=True, slots=True)
class OlderPage:
    """A part of an operation's history, newest event first."""

    events: list[Event]
    more: bool
    """Whether older events may be kept."""


async def before(store: Store, operation: str, position: str, count: int) -> OlderPage:
    """Return at most `count` kept events before a position, newest first: fewer if they are large.

    Any position will do, also one that no event has. Of old `progress` events only some are kept.
    """
    events: list[Event] = []
    size, more = 0, True
    while more and len(events) < count and size < MAX_PAGE_BYTES:
        part = await _part(store, operation, position, min(count - len(events), PART))
        events += part.events
        more = part.more
        if not part.events:
            break
        size += sum(len(event.data) for event in part.events)
        position = events[-1].position.decode()
    return OlderPage(events, more)


async def _part(store: Store, operation: str, position: str, count: int) -> OlderPage:
    """Return a part, which is read at one moment: a script may move events from the log to the older ones."""
    keys = store.keyspace.operation(operation)
    if position == "0-0":
        return OlderPage([], False)
    call = Call(KEPT, (keys.snapshot, keys.log, keys.kept, keys.curve), (position, str(count), "REV"))
    *streams, kept_more, curve_more, log_more = await store.connections.scripts.run(call)
    kept, curve, log = [read_events(operation, entries) for entries in streams]
    # Where one of the two was not read to its end, the other one may not be used beyond that.
    ends = [order(entries[-1][0]) for entries, more in ((streams[0], kept_more), (streams[1], curve_more)) if more]
    older = sorted((*kept, *curve), key=lambda event: order(event.position), reverse=True)
    if log:
        older = [event for event in older if order(event.position) < order(log[-1].position)]
    older = [event for event in older if not ends or order(event.position) >= max(ends)]
    events = [*log, *older]
    return OlderPage(events[:count], bool(ends) or bool(log_more) or len(events) > count)
