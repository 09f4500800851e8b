"""Positions: where in an operation's log something stands, as a Redis stream ID, `milliseconds-sequence`."""

import re

from progress_broker.errors import Invalid

START = "0-0"
"""Before everything."""

_CANONICAL = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)
_LIMIT = 1 << 64  # Redis keeps both halves as unsigned 64-bit integers


def parse(text: str) -> tuple[int, int]:
    """Return the position as a pair that sorts as Redis sorts it; raise `Invalid` unless it is canonical."""
    match = _CANONICAL.fullmatch(text)
    if match is not None:
        pair = int(match[1]), int(match[2])
        if max(pair) < _LIMIT:
            return pair
    shown = text if len(text) <= 60 else text[:60] + "…"
    raise Invalid(
        f"{shown!r} is not a position: one looks like 1732150000000-0 and comes from an event's id",
        field="position",
    )


def is_canonical(position: bytes) -> bool:
    """Return whether bytes that somebody wrote into Redis are a position."""
    try:
        parse(position.decode())
    except (UnicodeDecodeError, Invalid):
        return False
    return True


def order(position: bytes) -> tuple[int, int]:
    """Return what a position that Redis made sorts by."""
    ms, _, seq = position.partition(b"-")
    return int(ms), int(seq)


def milliseconds(position: bytes) -> int:
    """Return the time part of a position that Redis made: milliseconds since 1970."""
    return int(position[: position.index(b"-")])


def was_lost(position: bytes, found: bytes | None, length: int, least_kept: int) -> bool:
    """Whether a feed has lost an entry that it held at a position, other than by trimming.

    `found` is the last entry up to there. Trimming takes only the oldest entries and leaves as many as are kept at
    least. So another entry before the position tells of a loss, and so does a feed that is too short for trimming. How
    far a feed goes tells nothing, as it goes on after a loss.
    """
    return found != position and (found is not None or length < least_kept)
