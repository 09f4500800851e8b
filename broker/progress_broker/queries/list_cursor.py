"""Cursors of lists: a position that stays valid while operations change."""

import base64
import binascii

from progress_broker.errors import InvalidInput

MEMBERS = ("utf-8", "surrogateescape")
"""Encoding of index members. They are ids, unless another program added something else."""

LATEST = (1 << 53) - 1
"""The latest valid time. Index entries of other programs with a later time are ignored."""

Mark = tuple[int, str]
"""A position in a list: a time in milliseconds, and the id, for operations of the same millisecond."""


def read_cursor(cursor: str) -> Mark:
    """Return the position of a cursor; raise `InvalidInput`."""
    try:
        time, _, operation = base64.urlsafe_b64decode(cursor.encode()).decode(*MEMBERS).partition(" ")
        mark = int(time), operation
        if not 0 <= mark[0] <= LATEST:
            raise ValueError("the time is out of range")
        return mark
    except (binascii.Error, ValueError):
        raise InvalidInput(
            "invalid cursor: send the `next_cursor` of the previous page, unchanged", field="cursor"
        ) from None


def write_cursor(mark: Mark) -> str:
    """Return the cursor of a position."""
    return base64.urlsafe_b64encode(f"{mark[0]} {mark[1]}".encode(*MEMBERS)).decode()
