"""Telling a parent of its new child: an event in its log, so that its watchers know of it, and cancels reach it.

Whoever creates a child notes it after that. So a cancel of the parent comes either before the note, which is answered
with it, or after: then whoever cancels finds the child in the index. Either way the child is cancelled too.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from progress_broker.errors import BrokerError, OperationEnded, StorageFull, StorageUnavailable
from progress_broker.model.entry import Entry
from progress_broker.model.operation import Cancel, NewOperation, Status
from progress_broker.operations import cancellation
from progress_broker.operations.commands import read_cancel

STATE = ("status", "cancel")
"""What is looked at of a parent that has ended."""


class Parents(cancellation.Operations, Protocol):
    """What telling a parent asks of the store."""

    async def cancel_of(self, operation: str) -> Cancel | None:
        """Return the cancel that an operation which has ended was asked for by, if it was."""


def is_due(new: NewOperation, reply: Sequence[Any]) -> bool:
    """Return whether to note an operation, by the reply to its creation.

    One that existed but has done nothing is noted again: whoever created it may not have come to that.
    """
    return new.parent not in (None, new.id) and (bool(reply[4]) or int(reply[2]) == 1)


def entry(operation: str, new: NewOperation) -> Entry:
    """Return the event that tells a parent of a child; an answer with a cancel is one for the child, too."""
    told = {"operation": operation, "kind": new.kind, "title": new.title, "weight": new.weight}
    return Entry("child", orjson.dumps(told))


def cancel_of(state: Sequence[bytes | None]) -> Cancel | None:
    """Return the cancel that an operation which has ended, whose hash holds `state`, was asked for by, if it was."""
    status, cancel = state
    if cancel is not None:
        return read_cancel(cancel)
    return Cancel() if status == Status.CANCELLED.encode() else None


async def note(store: Parents, operation: str, new: NewOperation) -> None:
    """Tell a parent of its new child, and cancel that if its parent was asked to stop.

    A parent that is not there, or has ended otherwise, is only a label.
    """
    parent = new.parent or ""
    try:
        cancel = (await store.publish(parent, [entry(operation, new)], as_observer=True)).cancel
    except (StorageUnavailable, StorageFull):
        raise
    except OperationEnded:
        cancel = await store.cancel_of(parent)
    except BrokerError:
        return
    if cancel is not None:
        await cancellation.cancel_one(store, operation, cancel)
