"""From an operation's snapshot hash to the `Operation` people are shown."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from broker.errors import Gone, NotFound
from broker.models import Operation, Status
from broker.positions import milliseconds

FIELDS = (
    "gone",
    "spec",
    "status",
    "n",
    "position",
    "attempt",
    "worker",
    "cancel",
    "progress",
    "outcome",
    "created",
    "started",
    "finished",
    "expires",
)


def _time(ms: bytes | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(int(ms) / 1000, UTC)


def _foreign(data: bytes | None) -> dict[str, Any] | None:
    """Return an object that a worker wrote; a foreign one may have written anything, which must not hide the rest."""
    try:
        value = orjson.loads(data) if data is not None else None
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def read_snapshot(operation: str, values: list[bytes | None]) -> Operation:
    """Return the operation whose hash holds `values` for `FIELDS`; raise `NotFound` or `Gone` if it holds none."""
    fields: Mapping[str, bytes | None] = dict(zip(FIELDS, values, strict=True))
    if fields["gone"] is not None:
        raise Gone(f"operation {operation} was deleted")
    spec, status, n, position = fields["spec"], fields["status"], fields["n"], fields["position"]
    if spec is None or status is None or n is None or position is None:
        raise NotFound(f"there is no operation {operation}: it was never created, or its retention has passed")
    given = orjson.loads(spec)
    outcome = _foreign(fields["outcome"]) or {}
    worker = fields["worker"]
    now = Status(status.decode())
    return Operation(
        id=operation,
        kind=given["kind"],
        title=given["title"],
        owner=given["owner"],
        tags=given["tags"],
        parent=given["parent"],
        status=now,
        done=now.done,
        attempt=int(fields["attempt"] or 1),
        worker=worker.decode("utf-8", "replace") if worker else None,
        cancel_requested=fields["cancel"] is not None,
        progress=_foreign(fields["progress"]),
        result=outcome.get("result"),
        error=outcome.get("error"),
        created_at=_time(fields["created"]),
        started_at=_time(fields["started"]),
        updated_at=_time(str(milliseconds(position)).encode()),
        finished_at=_time(fields["finished"]),
        expires_at=_time(fields["expires"]) if now.done else None,
        position=position.decode(),
        events=int(n),
    )
