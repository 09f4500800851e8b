"""Notifies a parent of its new child with an event in the parent's log. So the parent's clients learn of the child, and
a cancel of the parent reaches it.

The creator of a child sends the notice after the creation. A cancel of the parent comes either before the notice, and
then the reply to the notice contains it; or after the notice, and then the canceller finds the child in the index. In
both cases the child is cancelled, too.
"""

from collections.abc import Sequence
from typing import Protocol

import orjson

from progress_broker.errors import BrokerError, OperationEnded, StorageFull, StorageUnavailable
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Cancel, NewOperation, Status
from progress_broker.model.publish import Created
from progress_broker.operations import cancellation
from progress_broker.operations.commands import read_cancel

STATE = ("status", "cancel")
"""The fields to read of a parent that has ended."""


class Parents(cancellation.Operations, Protocol):
    """What a notice needs from the store."""

    async def cancel_of(self, operation: str) -> Cancel | None:
        """Return the cancel request of an ended operation, if there was one."""


def is_due(new: NewOperation, created: Created, *, again: bool = False) -> bool:
    """Return whether to notify the parent of a child that was created; `again` also of one that existed.

    An operation that already existed, but has only its first event, is notified again: its creator may have stopped
    before it sent the notice.
    """
    return new.parent not in (None, new.id) and (again or created.new or created.events == 1)


def entry(operation: str, new: NewOperation) -> NewEvent:
    """Return the event that notifies a parent of a child. If the reply has a cancel, it is for the child, too."""
    data = {"operation": operation, "kind": new.kind, "title": new.title, "weight": new.weight}
    return NewEvent("child", orjson.dumps(data))


def cancel_of(state: Sequence[bytes | None]) -> Cancel | None:
    """Return the cancel request of an ended operation from the values of `STATE`, if there was one."""
    status, cancel = state
    if cancel is not None:
        return read_cancel(cancel)
    return Cancel() if status == Status.CANCELLED.encode() else None


async def notify_parent(store: Parents, operation: str, new: NewOperation) -> Cancel | None:
    """Notify a parent of its new child. If the parent was cancelled, cancel the child and return the cancel.

    If the parent does not exist, or has ended in another way, nothing happens: `parent` is only a label then.
    """
    parent = new.parent or ""
    try:
        cancel = (await store.publish(parent, [entry(operation, new)], as_observer=True)).cancel
    except (StorageUnavailable, StorageFull):
        raise
    except OperationEnded:
        cancel = await store.cancel_of(parent)
    except BrokerError:
        return None
    if cancel is not None:
        await cancellation.cancel_one(store, operation, cancel)
    return cancel
