"""Telling a parent of the child that a worker has just created, as `broker.noting` has it."""

from contextlib import suppress

from broker import cancelling, noting
from broker.connections import storage_errors
from broker.errors import BrokerError, Conflict, Invalid, OperationEnded, StorageFull, StorageUnavailable
from broker.models import Cancel, NewOperation, Status
from broker.publishing import Entry, publish_call, read_answer
from broker.settings import Settings
from workers.link import Link


def note(link: Link, settings: Settings, operation: str, new: NewOperation) -> Cancel | None:
    """Tell a parent of its new child; if that one was asked to stop, cancel the child, and return the cancel."""
    try:
        cancel = _publish(link, new.parent or "", noting.entry(operation, new))
    except (StorageUnavailable, StorageFull):
        raise
    except OperationEnded:
        key = link.keyspace().operation(new.parent or "").snapshot
        with storage_errors():
            cancel = noting.cancel_of(link.client().hmget(key, noting.STATE))
    except BrokerError:
        return None  # it is only a label
    if cancel is not None:
        _cancel(link, settings, operation, cancel)
    return cancel


def _cancel(link: Link, settings: Settings, operation: str, cancel: Cancel) -> None:
    try:
        _publish(link, operation, cancelling.ended(settings, Status.PENDING, cancel), Status.PENDING)
    except Conflict:  # another worker has begun it
        with suppress(Invalid, OperationEnded):
            _publish(link, operation, cancelling.requested(settings, cancel))
    except OperationEnded:
        pass


def _publish(link: Link, operation: str, entry: Entry, expect: str = "") -> Cancel | None:
    keys = link.keyspace().operation(operation)
    return read_answer(link.run(publish_call(operation, keys, [entry], expect=expect, silent_ms=0))).cancel
