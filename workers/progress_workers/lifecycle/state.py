"""Where an operation stands in Redis, as far as a worker must know before it says anything."""

from typing import Any, Final, NamedTuple

import orjson

from progress_broker.errors import Gone, NotFound
from progress_broker.model.operation import Cancel, Status
from progress_broker.operations.commands import read_cancel
from progress_workers.transport.connection import Link
from progress_workers.transport.pipeline import errors_that_may_pass


class State(NamedTuple):
    """What an operation in Redis says of itself, as far as a worker must know."""

    status: Status = Status.PENDING
    attempt: int = 1
    lease_s: float | None = None
    progress: dict[str, Any] = {}  # noqa: RUF012 - never written to
    cancel: Cancel | None = None
    created_ms: int | None = None
    idle_limit_s: float | None = None
    traceparent: str = ""


_FIELDS: Final = ("gone", "status", "attempt", "lease_ms", "progress", "cancel", "created", "limits", "traceparent")


def read_state(link: Link, operation: str) -> State:
    """Return where an operation stands; raise `NotFound` or `Gone`."""
    key = link.keyspace().operation(operation).snapshot
    with errors_that_may_pass():
        gone, status, attempt, lease_ms, progress, cancel, created, limits, traceparent = link.client().hmget(
            key, _FIELDS
        )
    if gone is not None:
        raise Gone(f"operation {operation} was deleted")
    if status is None:
        raise NotFound(f"there is no operation {operation}: it was never created, or its retention has passed")
    try:
        told = orjson.loads(progress) if progress is not None else {}
    except orjson.JSONDecodeError:
        told = {}  # a worker in another language may have written anything
    try:
        return State(
            Status(status.decode()),
            int(attempt or 1),
            int(lease_ms or 0) / 1000 or None,
            told if isinstance(told, dict) else {},
            None if cancel is None else read_cancel(cancel),
            int(created) if created else None,
            int(limits.split()[3]) / 1000 if limits else None,
            (traceparent or b"").decode("latin-1"),
        )
    except (ValueError, IndexError, OverflowError):
        raise NotFound(
            f"what Redis holds as operation {operation} is something else: another program wrote it"
        ) from None
