"""Cursors: where a client stands that follows many operations, as one opaque word.

It holds a position for each lane. All that its operations said in that lane up to there, it has been told; or, where
the position is marked, it was still being told how they stood at that position.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from broker import positions
from broker.errors import Invalid

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LONGEST = 40  # of one lane's part: a lane, two numbers of 64 bits and a mark
_BEGUN, _LOST = "B", "L"


class Place(NamedTuple):
    """Where a client stands in a lane."""

    position: bytes
    begun: bool = False
    """Whether it has only begun there: not all operations have been told to it yet, so all will be told again."""
    lost: bool = False
    """Whether it has begun anew there, because storage has lost what it had been told."""


@lru_cache(maxsize=8192)  # as many who follow the same operations are told the same
def part(lane: int, position: bytes) -> bytes:
    """Return what a lane's position is in a cursor."""
    ms, seq = positions.order(position)
    written = f"{_base36(lane)}.{_base36(ms)}.{_base36(seq)}" if seq else f"{_base36(lane)}.{_base36(ms)}"
    return written.encode()


def join(parts: Iterable[bytes]) -> bytes:
    """Return the cursor of these parts."""
    return b"_".join(parts)


def write(places: Mapping[int, Place]) -> bytes:
    """Return the cursor of these lanes' places."""
    return join(part_of(lane, place) for lane, place in places.items())


def part_of(lane: int, place: Place) -> bytes:
    """Return what a lane's place is in a cursor."""
    mark = _LOST if place.lost else _BEGUN if place.begun else ""
    return part(lane, place.position) + mark.encode()


def parse(text: str, lanes: int) -> dict[int, Place]:
    """Return the place in each lane; raise `Invalid`."""
    places: dict[int, Place] = {}
    for each in text.split("_", lanes):
        mark = each[-1:] if each.endswith((_BEGUN, _LOST)) else ""
        numbers = each.removesuffix(mark).split(".")
        if len(each) > _LONGEST or not 2 <= len(numbers) <= 3 or not all(map(_is_number, numbers)):
            raise _invalid(text)
        lane, ms, seq = [int(number, 36) for number in [*numbers, "0"][:3]]
        if lane >= lanes or lane in places or max(ms, seq) >= 1 << 64:
            raise _invalid(text)
        places[lane] = Place(b"%d-%d" % (ms, seq), begun=bool(mark), lost=mark == _LOST)
    return places


def _invalid(text: str) -> Invalid:
    shown = text if len(text) <= 60 else text[:60] + "…"
    return Invalid(
        f"{shown!r} is no cursor of a stream of many operations: it comes from the id of one of its events, unchanged",
        field="last_event_id",
    )


def _is_number(text: str) -> bool:
    return bool(text) and all(digit in _DIGITS for digit in text) and (text == "0" or text[0] != "0")


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
