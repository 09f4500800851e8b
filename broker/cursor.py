"""Cursors: where a client stands that follows many operations, as one opaque word.

It holds a position for each lane. All that its operations said in that lane up to there, it has been told.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from broker import positions
from broker.errors import Invalid

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LONGEST = 40  # of one lane's part: a lane and two numbers of 64 bits


@lru_cache(maxsize=8192)  # as many who follow the same operations are told the same
def part(lane: int, position: bytes) -> bytes:
    """Return what a lane's position is in a cursor."""
    ms, seq = positions.order(position)
    written = f"{_base36(lane)}.{_base36(ms)}.{_base36(seq)}" if seq else f"{_base36(lane)}.{_base36(ms)}"
    return written.encode()


def join(parts: Iterable[bytes]) -> bytes:
    """Return the cursor of these parts."""
    return b"_".join(parts)


def write(places: Mapping[int, bytes]) -> bytes:
    """Return the cursor of these lanes' positions."""
    return join(part(lane, position) for lane, position in places.items())


def parse(text: str, lanes: int) -> dict[int, bytes]:
    """Return each lane's position; raise `Invalid`."""
    places: dict[int, bytes] = {}
    for each in text.split("_", lanes):
        numbers = each.split(".")
        if len(each) > _LONGEST or not 2 <= len(numbers) <= 3 or not all(map(_is_number, numbers)):
            raise _invalid(text)
        lane, ms, seq = [int(number, 36) for number in [*numbers, "0"][:3]]
        if lane >= lanes or lane in places or max(ms, seq) >= 1 << 64:
            raise _invalid(text)
        places[lane] = b"%d-%d" % (ms, seq)
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
