"""Reads the events that are too old for an operation's log, together with the log.

The log has each of the newest events, without gaps in their numbers. Older ones are in two more streams, which
`older_events.lua` writes: one has those that are not `progress`, the other some `progress` events of the whole life.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from progress_broker.model.event import Event, read_events
from progress_broker.model.position import order
from progress_broker.nodes.calls import Call
from progress_broker.operations.store import Store
from progress_broker.storage.scripts import KEPT

_MOST_POINTS = 400
"""How many points a curve has at most: POINTS of `older_events.lua`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of an operation from a position on, as of one moment."""

    events: Sequence[Event]
    """The kept events from the position on, oldest first: at most as many as were requested."""
    more: bool
    """Whether more may follow these events. Then there are fewer than were requested if they are large."""
    oldest: Event | None
    """The oldest event of the log."""
    first: Event | None
    """The oldest kept event that is not `progress`; None if there is none, or these streams can't be used."""
    before: Event | None
    """The last of the older events before the position."""

    def has_all_after(self, position: bytes) -> bool:
        """Whether all events after a position are kept, except `progress`."""
        for event in (self.first, self.oldest):
            if event is not None:
                return event.n == 1 or order(event.position) <= order(position)
        return True

    def had(self, position: bytes) -> bool:
        """Whether the operation may have had an event at the requested position, although it is not kept.

        It may have been `progress` between two older events whose numbers have a gap, or any event before the oldest
        one.
        """
        if self.oldest is None or self.oldest.n == 1 or order(self.oldest.position) < order(position):
            return False
        if self.before is None:
            return self.first is None or self.first.n > 1
        return self.events[0].n > self.before.n + 1


async def read_kept(store: Store, operation: str, position: bytes, count: int) -> Kept:
    """Return at most `count` events from a position on, itself included.

    All streams are read as of one moment: a script may move events from one to another between two reads.
    """
    keys = store.keyspace.operation(operation)
    call = Call(KEPT, (keys.snapshot, keys.log, keys.kept, keys.curve), (position, str(count)))
    *streams, kept_more, curve_more, log_more = await store.connections.scripts.run(call)
    *before, oldest, first, kept, curve, log = [read_events(operation, entries) for entries in streams]
    older = sorted((*kept, *curve), key=_order)
    if oldest:
        older = [event for event in older if _order(event) < _order(oldest[0])]
    # Where a stream was not read to its end, the other one may not be used beyond that.
    ends = [order(entries[-1][0]) for entries, more in ((streams[4], kept_more), (streams[5], curve_more)) if more]
    older = [event for event in older if not ends or _order(event) <= min(ends)]
    events = (*older, *log)
    return Kept(
        events[:count],
        bool(ends) or bool(log_more) or len(events) > count,
        oldest[0] if oldest else None,
        first[0] if first else None,
        max((event for some in before for event in some), key=lambda event: event.n, default=None),
    )


def whole_curve(count: int) -> int:
    """Return how many of the oldest events to read: at least `count`, and a curve with an event after it."""
    return max(count, _MOST_POINTS + 1)


def spread(events: Sequence[Event], most: int) -> Sequence[Event]:
    """Return at most so many of the events, evenly chosen, and the newest among them."""
    if len(events) <= most:
        return events
    return [events[(at + 1) * len(events) // most - 1] for at in range(most)]


def _order(event: Event) -> tuple[int, int]:
    return order(event.position)
