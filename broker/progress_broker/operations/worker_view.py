"""Converts an operation's snapshot hash to what a worker needs before it publishes. No I/O happens here."""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from progress_broker.errors import Gone, NotFound
from progress_broker.model.operation import Status
from progress_broker.model.publish import WorkerView as WorkerView
from progress_broker.model.publish import read_counts
from progress_broker.operations.commands import read_cancel
from progress_broker.storage.schema import check_schema_of, overwritten

FIELDS: Final = (
    "gone",
    "schema",
    "status",
    "attempt",
    "lease_ms",
    "progress",
    "cancel",
    "created",
    "idle_ms",
    "traceparent",
    "counts",
    "started",
    "metadata",
    "created_metadata",
    "spec",
    "finished",
)
"""The fields whose values `read_worker_view` expects, in this order."""


def read_worker_view(operation: str, values: Sequence[bytes | None]) -> WorkerView:
    """Return an operation's state from the values of `FIELDS`; raise `NotFound` or `Gone`."""
    gone, schema, status, attempt, lease_ms, progress, cancel, created, idle_ms, traceparent, counts, *rest = values
    started, metadata, created_metadata, spec, finished = rest
    parent = _object(spec).get("parent")
    if gone is not None:
        raise Gone(f"operation {operation} was deleted")
    if status is None:
        raise NotFound(f"there is no operation {operation}: it was never created, or its retention has passed")
    check_schema_of(operation, schema)
    try:
        return WorkerView(
            Status(status.decode()),
            int(attempt or 1),
            int(lease_ms or 0) / 1000 or None,
            _object(progress),
            None if cancel is None else read_cancel(cancel),
            int(created) if created else None,
            int(idle_ms) / 1000 if idle_ms else None,
            (traceparent or b"").decode("latin-1"),
            read_counts(counts),
            int(started) if started else None,
            _object(created_metadata if metadata is None else metadata),
            parent if isinstance(parent, str) else None,
            int(finished) if finished else None,
        )
    except (ValueError, OverflowError):
        raise overwritten(operation) from None


def _object(data: bytes | None) -> dict[str, Any]:
    """Return a JSON object. A worker in another language may have written something invalid."""
    try:
        found = orjson.loads(data) if data is not None else {}
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
