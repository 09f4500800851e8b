"""Notifies a parent of a child that a worker has just created; see `progress_broker.operations.parent_notice`."""

from contextlib import suppress

from progress_broker.errors import BrokerError, Conflict, InvalidInput, OperationEnded, StorageFull, StorageUnavailable
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Cancel, NewOperation, Status
from progress_broker.operations import cancellation, parent_notice
from progress_broker.operations.commands import publish_call, read_answer
from progress_broker.settings import Settings
from progress_broker.storage.redis_errors import storage_errors
from progress_workers.transport.connection import Link


def notify_parent(link: Link, settings: Settings, operation: str, new: NewOperation) -> Cancel | None:
    """Notify a parent of its new child. If the parent was asked to stop, cancel the child and return the cancel."""
    try:
        cancel = _publish(link, new.parent or "", parent_notice.entry(operation, new))
    except (StorageUnavailable, StorageFull):
        raise
    except OperationEnded:
        key = link.keyspace().operation(new.parent or "").snapshot
        with storage_errors():
            cancel = parent_notice.cancel_of(link.client().hmget(key, parent_notice.STATE))
    except BrokerError:
        return None  # then the parent's id is only a label
    if cancel is not None:
        _cancel(link, settings, operation, cancel)
    return cancel


def _cancel(link: Link, settings: Settings, operation: str, cancel: Cancel) -> None:
    try:
        _publish(link, operation, cancellation.ended(settings, Status.PENDING, cancel), Status.PENDING)
    except Conflict:  # another worker has started it
        with suppress(InvalidInput, OperationEnded):
            _publish(link, operation, cancellation.requested(settings, cancel))
    except OperationEnded:
        pass


def _publish(link: Link, operation: str, entry: NewEvent, expect: str = "") -> Cancel | None:
    keys = link.keyspace().operation(operation)
    return read_answer(link.run(publish_call(operation, keys, [entry], expect=expect, as_observer=True))).cancel
