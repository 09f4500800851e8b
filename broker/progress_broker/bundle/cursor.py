"""Cursors: the position of a client that follows many operations, as one opaque string.

It has a position for each lane: the client has received all events of its operations in that lane up to there. A mark
after the position is an exception:

- `B`: the client has not yet received the state of all the lane's operations at this position. All snapshots are sent
  again.
- `L`: Redis has lost history that the client had received. The client has not yet received all the snapshots that tell
  so. They are sent again, each at the operation's last event up to this position, and all later events follow.
- `T` and an older position: some operations of the lane no longer have all their events after the older position, and
  the client must still get a snapshot of each of them. Of the other operations it has received everything.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from progress_broker.errors import InvalidInput
from progress_broker.model.position import order

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PARTIAL, _LOST, _TRIMMED = "B", "L", "T"
_NUMBER = "(0|[1-9a-z][0-9a-z]{0,12})"  # of 64 bits, in base 36
_PART = re.compile(rf"{_NUMBER}\.{_NUMBER}(?:\.{_NUMBER})?(?:([BL])|T{_NUMBER}(?:\.{_NUMBER})?)?")


class LanePosition(NamedTuple):
    """A client's position in a lane."""

    position: bytes
    partial: bool = False
    """Whether the client still needs snapshots. Then all of them are sent again."""
    lost: bool = False
    """Whether the reason is that Redis has lost history."""
    trimmed_since: bytes | None = None
    """If a snapshot with a reset is still due: the position up to which the client has all events of all operations."""


@lru_cache(maxsize=8192)  # clients that follow the same operations get the same cursors
def part(lane: int, position: bytes) -> bytes:
    """Return the part of a cursor for a lane's position."""
    return f"{_base36(lane)}.{_written(position)}".encode()


def join(parts: Iterable[bytes]) -> bytes:
    """Return the cursor of these parts."""
    return b"_".join(parts)


def write(lane_positions: Mapping[int, LanePosition]) -> bytes:
    """Return the cursor for the positions in these lanes."""
    return join(part_of(lane, position_of_lane) for lane, position_of_lane in lane_positions.items())


def part_of(lane: int, position_of_lane: LanePosition) -> bytes:
    """Return the part of a cursor for a lane."""
    written = part(lane, position_of_lane.position)
    if position_of_lane.trimmed_since is not None:
        return written + (_TRIMMED + _written(position_of_lane.trimmed_since)).encode()
    if position_of_lane.partial:
        return written + (_LOST if position_of_lane.lost else _PARTIAL).encode()
    return written


def parse(text: str, lanes: int) -> dict[int, LanePosition]:
    """Return the position in each lane; raise `InvalidInput`."""
    lane_positions: dict[int, LanePosition] = {}
    for written in text.split("_", lanes):
        match = _PART.fullmatch(written)
        if match is None:
            raise _invalid(text)
        lane, ms, seq, mark, since_ms, since_seq = match.groups()
        since = None if since_ms is None else _position(text, since_ms, since_seq)
        if (number := int(lane, 36)) >= lanes or number in lane_positions:
            raise _invalid(text)
        lane_positions[number] = LanePosition(_position(text, ms, seq), mark is not None, mark == _LOST, since)
    return lane_positions


def _position(text: str, ms: str, seq: str | None) -> bytes:
    numbers = int(ms, 36), int(seq or "0", 36)
    if max(numbers) >= 1 << 64:
        raise _invalid(text)
    return b"%d-%d" % numbers


def _written(position: bytes) -> str:
    ms, seq = order(position)
    return f"{_base36(ms)}.{_base36(seq)}" if seq else _base36(ms)


def _invalid(text: str) -> InvalidInput:
    shown = text if len(text) <= 60 else text[:60] + "…"
    return InvalidInput(
        f"the cursor {shown!r} is not valid: send the `id` of the last event of a stream of several operations,"
        " unchanged",
        field="last_event_id",
    )


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
