"""Positions in an operation's log. A position is a Redis stream ID, `milliseconds-sequence`."""

import re

from progress_broker.errors import InvalidInput

START = "0-0"
"""The position before the first event."""

_CANONICAL = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)
_LIMIT = 1 << 64  # Redis keeps both halves as unsigned 64-bit integers


def parse(text: str) -> tuple[int, int]:
    """Return the position as a pair that sorts in Redis' order; raise `InvalidInput` if it is not in canonical form."""
    match = _CANONICAL.fullmatch(text)
    if match is not None:
        pair = int(match[1]), int(match[2])
        if max(pair) < _LIMIT:
            return pair
    shown = text if len(text) <= 60 else text[:60] + "…"
    raise InvalidInput(
        f"{shown!r} is not a valid position: send the id of an event, such as 1732150000000-0",
        field="position",
    )


def is_canonical(position: bytes) -> bool:
    """Return whether bytes from Redis are a valid position. Any program may have written them."""
    try:
        parse(position.decode())
    except (UnicodeDecodeError, InvalidInput):
        return False
    return True


def order(position: bytes) -> tuple[int, int]:
    """Return the sort key of a position that Redis generated."""
    ms, _, seq = position.partition(b"-")
    return int(ms), int(seq)


def just_before(position: bytes) -> bytes:
    """Return the position a millisecond before another one."""
    return b"%d-0" % max(0, milliseconds(position) - 1)


def a_minute_before(position: bytes) -> bytes:
    """Return the position a minute before another one."""
    return b"%d-0" % max(0, milliseconds(position) - 60_000)


def milliseconds(position: bytes) -> int:
    """Return the time of a position that Redis generated, in milliseconds since 1970."""
    return int(position[: position.index(b"-")])


def was_lost(position: bytes, found: bytes | None, length: int, least_kept: int) -> bool:
    """Whether a feed has lost the entry that it had at a position, other than by trimming.

    `found` is the last entry at or before the position. Trimming removes only the oldest entries, and keeps at least
    `least_kept` of them. So the entry was lost if an older entry still exists, or if the feed is too short to have been
    trimmed. The feed's newest entry proves nothing, because a feed continues after a loss.
    """
    return found != position and (found is not None or length < least_kept)
