"""Calls of the script that walks a lane's operations, and its replies. No I/O happens here."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from progress_broker.nodes.calls import Call
from progress_broker.queries.list_cursor import MEMBERS, Mark
from progress_broker.storage.keys import LaneKeys
from progress_broker.storage.scripts import WALK


class Part(NamedTuple):
    """Some of a lane's operations in an order: those that may match a query."""

    marks: list[Mark]
    place: Mark | None
    """The last operation that was looked at; None if there was none."""
    at_end: bool
    looked: int
    """How many operations were looked at."""
    small: bool
    """Whether they are so few that they were read whole."""


def walk_call(lane: LaneKeys, most: int, look: int, arguments: Sequence[str | bytes]) -> Call:
    """Return the call that looks at so many of a lane's operations, and returns at most so many that may match."""
    return Call(WALK, (lane.index,), (lane.operations, str(most), str(look), *arguments))


def after(mark: Mark | None) -> list[str | bytes]:
    """Return the arguments to go on after a place."""
    return [] if mark is None else ["AFTER", f"{mark[0]} {mark[1]}".encode(*MEMBERS)]


def read_part(reply: Sequence[Any]) -> Part:
    """Return the part in a reply."""
    at_end, looked, small, ms, id, *found = reply
    pairs = zip(found[::2], found[1::2], strict=True)
    place = (int(ms), id.decode(*MEMBERS)) if id else None
    return Part([(int(ms), id.decode(*MEMBERS)) for id, ms in pairs], place, bool(at_end), looked, bool(small))
