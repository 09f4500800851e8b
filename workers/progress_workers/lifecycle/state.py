"""Reads an operation's state from Redis, before a worker reports anything."""

from progress_broker.operations.worker_view import (
    END_FIELDS,
    FIELDS,
    WorkerView,
    read_cancelled_at_s,
    read_worker_view,
)
from progress_broker.storage.redis_errors import storage_errors
from progress_workers.transport.connection import Link
from progress_workers.transport.pipeline import errors_that_may_pass


def load_snapshot(link: Link, operation: str) -> WorkerView:
    """Return an operation's state; raise `NotFound` or `Gone`."""
    key = link.keyspace().operation(operation).snapshot
    with errors_that_may_pass():
        values = link.client().hmget(key, FIELDS)
    return read_worker_view(operation, values)


def cancelled_at_s(link: Link, operation: str) -> float | None:
    """Return when an operation was cancelled, in seconds since 1970; None if it was not cancelled or does not exist."""
    with storage_errors():
        key = link.keyspace().operation(operation).snapshot
        values = link.client().hmget(key, END_FIELDS)
    return read_cancelled_at_s(values)
