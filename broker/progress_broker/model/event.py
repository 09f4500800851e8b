"""Events, as they are read from Redis."""

import re
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from progress_broker.model.operation import OPERATION_ID
from progress_broker.model.position import milliseconds

PROGRESS, STATUS, END, SNAPSHOT = b"progress", b"status", b"end", b"snapshot"
OPERATIONS, MISSING = b"operations", b"missing"
CHILD, CHILDREN = b"child", b"children"
BOOKMARK = b"bookmark"
REPLAY_END = b"replay-end"
GONE = b"gone"
"""An internal event without a number: the operation was deleted."""
CREATED = b"created"
"""Another internal event: an operation was created. Its data lists the operation's indexes, one per line."""
IMPORTED = b"imported"
"""Another internal event: an operation was imported, perhaps in place of another one. Only its log has its events."""
SIGNAL = b"signal"
"""Another internal event: a signal was sent to an operation's worker."""

_OWN_NAME = re.compile(b"~?" + OPERATION_ID.encode())
_NUMBERS = 1 << 53
"""Larger integers are not exact in every client."""


class Event(NamedTuple):
    """An entry of an operation's log."""

    operation: bytes
    position: bytes
    n: int
    """The number of the event in its operation, from 1; 0 for an internal event, such as `gone`."""
    type: bytes
    data: bytes
    traceparent: bytes = b""
    """The publisher's trace context, if it is traced. Only entries of the feed have it."""
    kind: bytes = b""
    """The kind of an operation that ends here. Only its `end` in the feed has it."""


class LastEvent(NamedTuple):
    """Where a log or its reader stands: the number and position of the last event. 0 is before the first."""

    n: int
    position: bytes


def read_entry(operation: bytes | None, entry: Sequence[object]) -> Event | None:
    """Return the event in a stream entry `[id, [field, value, …]]`, or None if another program wrote the entry."""
    position, fields = entry
    if not isinstance(position, bytes) or not isinstance(fields, list):
        return None
    if len(fields) == 8 and fields[0] == b"o" and fields[2] == b"n" and fields[4] == b"t" and fields[6] == b"d":
        # The layout that the scripts write to a feed. To unpack it costs half as much as to build a dict.
        traceparent = kind = b""
        _, name, _, n, _, type, _, data = fields
    else:
        pairs = dict(zip(fields[::2], fields[1::2], strict=False))
        name, n = pairs.get(b"o", operation), pairs.get(b"n", b"0")
        type, data = pairs.get(b"t", b""), pairs.get(b"d", b"")
        traceparent, kind = pairs.get(b"tp", b""), pairs.get(b"k", b"")
    if name is None:
        return None
    try:
        number = int(n)
    except ValueError:
        return None
    # Internal entries have no number. They must have a valid operation id, because several readers parse it.
    if not 0 <= number < _NUMBERS or (number == 0 and _OWN_NAME.fullmatch(name) is None):
        return None
    return Event(name, position, number, type, data, traceparent, kind)


def read_events(operation: str, entries: Iterable[Sequence[object]]) -> list[Event]:
    """Return the events in the entries of an operation's log, without entries that another program wrote."""
    read = (read_entry(operation.encode(), entry) for entry in entries)
    return [event for event in read if event is not None and event.n > 0]


def age_s(event: Event) -> float:
    """Return how long ago an event was published, in seconds; 0 if Redis' clock is ahead of ours."""
    return max(0.0, time.time() - milliseconds(event.position) / 1000)
