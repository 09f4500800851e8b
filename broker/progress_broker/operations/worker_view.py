"""From an operation's snapshot hash to what a worker must know before it says anything. Without I/O."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from progress_broker.errors import Gone, NotFound
from progress_broker.model.operation import Cancel, Status
from progress_broker.operations.commands import read_cancel
from progress_broker.storage.schema import check_schema_of

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
)
"""What `read_worker_view` takes the values of, in this order."""

END_FIELDS: Final = ("status", "finished")
"""What `read_cancelled_at_s` takes the values of, in this order."""


class WorkerView(NamedTuple):
    """What an operation in Redis says of itself, as far as a worker must know."""

    status: Status = Status.PENDING
    attempt: int = 1
    lease_s: float | None = None
    progress: dict[str, Any] = {}  # noqa: RUF012 - never written to
    cancel: Cancel | None = None
    created_ms: int | None = None
    idle_limit_s: float | None = None
    traceparent: str = ""


def read_worker_view(operation: str, values: Sequence[bytes | None]) -> WorkerView:
    """Return where an operation stands, by the values of `FIELDS`; raise `NotFound` or `Gone`."""
    gone, schema, status, attempt, lease_ms, progress, cancel, created, idle_ms, traceparent = values
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
            _progress(progress),
            None if cancel is None else read_cancel(cancel),
            int(created) if created else None,
            int(idle_ms) / 1000 if idle_ms else None,
            (traceparent or b"").decode("latin-1"),
        )
    except (ValueError, OverflowError):
        raise NotFound(
            f"what Redis holds as operation {operation} is something else: another program wrote it"
        ) from None


def read_cancelled_at_s(values: Sequence[bytes | None]) -> float | None:
    """Return when an operation was cancelled, in seconds since 1970, by the values of `END_FIELDS`; None if it wasn't.

    It is 0 where nothing tells when.
    """
    status, finished = values
    return int(finished or 0) / 1000 if status == Status.CANCELLED.encode() else None


def _progress(data: bytes | None) -> dict[str, Any]:
    """Return the progress as it was told last; a worker in another language may have written anything."""
    try:
        told = orjson.loads(data) if data is not None else {}
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}
