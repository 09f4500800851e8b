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

CHANGED = "changed"


def read_cursor(cursor: str, order: str = CHANGED) -> Mark:
    """Return the position of a cursor in an order; raise `InvalidInput`, also for a cursor of another order."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode()).decode(*MEMBERS)
        if not text[:1].isdigit():
            of, _, text = text.partition(" ")
        else:  # that of the last change, as it was when there was no other order
            of = CHANGED
        time, _, operation = text.partition(" ")
        mark = int(time), operation
        if not 0 <= mark[0] <= LATEST:
            raise ValueError("the time is out of range")
    except (binascii.Error, ValueError):
        raise InvalidInput(
            "invalid cursor: send the `next_cursor` of the previous page, unchanged", field="cursor"
        ) from None
    if of != order:
        raise InvalidInput(
            f"the cursor is not one of the order {order!r}: send it with the same `sort` as the previous page",
            field="cursor",
        )
    return mark


def write_cursor(mark: Mark, order: str = CHANGED) -> str:
    """Return the cursor of a position in an order."""
    of = "" if order == CHANGED else f"{order} "
    return base64.urlsafe_b64encode(f"{of}{mark[0]} {mark[1]}".encode(*MEMBERS)).decode()
