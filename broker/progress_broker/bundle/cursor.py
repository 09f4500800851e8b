"""Cursors: where a client stands that follows many operations, as one opaque word.

It holds a position for each lane: the client was told all that its operations said in that lane up to there. A mark
after the position makes an exception:

- `B`: the client was not yet told how all operations of the lane stood at the position. It is told again.
- `L`: the same, and storage has lost what the client knew of the lane.
- `T` and an older position: some operations of the lane no longer keep all their events after the older position, and
  the client has yet to be told so by a snapshot. Of the others it was told all.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from progress_broker.errors import Invalid
from progress_broker.model.position import order

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PARTIAL, _LOST, _TRIMMED = "B", "L", "T"
_NUMBER = "(0|[1-9a-z][0-9a-z]{0,12})"  # of 64 bits, in base 36
_PART = re.compile(rf"{_NUMBER}\.{_NUMBER}(?:\.{_NUMBER})?(?:([BL])|T{_NUMBER}(?:\.{_NUMBER})?)?")


class Place(NamedTuple):
    """Where a client stands in a lane."""

    position: bytes
    partial: bool = False
    """Whether the client was not yet told how all operations stand there. All are told again."""
    lost: bool = False
    """Whether that is because storage has lost what the client knew."""
    trimmed_since: bytes | None = None
    """If a snapshot with a reset is owed: the position up to which the client had been told all, of all operations."""


@lru_cache(maxsize=8192)  # as many who follow the same operations are told the same
def part(lane: int, position: bytes) -> bytes:
    """Return what a lane's position is in a cursor."""
    return f"{_base36(lane)}.{_written(position)}".encode()


def join(parts: Iterable[bytes]) -> bytes:
    """Return the cursor of these parts."""
    return b"_".join(parts)


def write(places: Mapping[int, Place]) -> bytes:
    """Return the cursor of these lanes' places."""
    return join(part_of(lane, place) for lane, place in places.items())


def part_of(lane: int, place: Place) -> bytes:
    """Return what a lane's place is in a cursor."""
    written = part(lane, place.position)
    if place.trimmed_since is not None:
        return written + (_TRIMMED + _written(place.trimmed_since)).encode()
    if place.partial:
        return written + (_LOST if place.lost else _PARTIAL).encode()
    return written


def parse(text: str, lanes: int) -> dict[int, Place]:
    """Return the place in each lane; raise `Invalid`."""
    places: dict[int, Place] = {}
    for each in text.split("_", lanes):
        read = _PART.fullmatch(each)
        if read is None:
            raise _invalid(text)
        lane, ms, seq, mark, since_ms, since_seq = read.groups()
        since = None if since_ms is None else _position(text, since_ms, since_seq)
        if (number := int(lane, 36)) >= lanes or number in places:
            raise _invalid(text)
        places[number] = Place(_position(text, ms, seq), mark is not None, mark == _LOST, since)
    return places


def _position(text: str, ms: str, seq: str | None) -> bytes:
    numbers = int(ms, 36), int(seq or "0", 36)
    if max(numbers) >= 1 << 64:
        raise _invalid(text)
    return b"%d-%d" % numbers


def _written(position: bytes) -> str:
    ms, seq = order(position)
    return f"{_base36(ms)}.{_base36(seq)}" if seq else _base36(ms)


def _invalid(text: str) -> Invalid:
    shown = text if len(text) <= 60 else text[:60] + "…"
    return Invalid(
        f"{shown!r} is not a cursor of a stream of many operations: send the id of one of its events, unchanged",
        field="last_event_id",
    )


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
