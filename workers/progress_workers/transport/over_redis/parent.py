"""Notifies a parent of a child that a worker has just created; see `progress_broker.operations.parent_notice`."""

from contextlib import suppress

from progress_broker.errors import BrokerError, Conflict, InvalidInput, OperationEnded, StorageFull, StorageUnavailable
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Cancel, NewOperation, Status
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations import cancellation, parent_notice
from progress_broker.operations.commands import publish_call, read_answer
from progress_workers.transport.over_redis.connection import Connection


def notify_parent(connection: Connection, operation: str, new: NewOperation) -> Cancel | None:
    """Notify a parent of its new child. If the parent was asked to stop, cancel the child and return the cancel."""
    parent = new.parent or ""
    try:
        cancel = _publish(connection, parent, parent_notice.entry(operation, new))
    except (StorageUnavailable, StorageFull):
        raise
    except OperationEnded:
        with storage_errors():
            key = connection.keys(parent).snapshot
            cancel = parent_notice.cancel_of(connection.client().hmget(key, parent_notice.STATE))
    except BrokerError:
        return None  # then the parent's id is only a label
    if cancel is not None:
        _cancel(connection, operation, cancel)
    return cancel


def _cancel(connection: Connection, operation: str, cancel: Cancel) -> None:
    settings = connection.settings
    try:
        _publish(connection, operation, cancellation.ended(settings, Status.PENDING, cancel), Status.PENDING)
    except Conflict:  # another worker has started it
        with suppress(InvalidInput, OperationEnded):
            _publish(connection, operation, cancellation.requested(settings, cancel))
    except OperationEnded:
        pass


def _publish(connection: Connection, operation: str, entry: NewEvent, expect: str = "") -> Cancel | None:
    call = publish_call(operation, connection.keys(operation), [entry], expect=expect, as_observer=True)
    return read_answer(connection.run_durable(call)[0]).cancel
