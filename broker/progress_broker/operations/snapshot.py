"""Converts an operation's snapshot hash in Redis to an `Operation`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import ValidationError

from progress_broker.errors import Gone, InvalidInput, NotFound
from progress_broker.model.grants import ResourceAttributes
from progress_broker.model.metadata import FIELD, indexed
from progress_broker.model.operation import CancelShown, NewOperation, Operation, Status
from progress_broker.model.position import milliseconds, parse
from progress_broker.model.validation import fits_nesting_limit
from progress_broker.operations.cancellation import Standing
from progress_broker.operations.commands import read_cancel
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.schema import check_schema_of, overwritten
from progress_broker.storage.scripts import SCHEMA

_LONGEST_S = 10 * 366 * 86_400
_COUNTS = 1 << 53

FIELDS = (
    "gone",
    "schema",
    "spec",
    "status",
    "n",
    "position",
    "attempt",
    "worker",
    "cancel",
    "cancel_at",
    "progress",
    "outcome",
    "created",
    "started",
    "finished",
    "expires",
    "has_children",
    "metadata",
    "created_metadata",
)


ATTRIBUTE_FIELDS = ("spec", "indexes")
"""The hash fields to read for an operation's attributes. `indexes` stays after a deletion, so that callers that were
allowed to read the operation get `gone`."""


def missing(operation: str) -> NotFound:
    """Return the error for an operation that does not exist, or that the caller may not read."""
    return NotFound(f"there is no operation {operation}: it was never created, or its retention has passed")


def attributes_of(operation: Operation) -> ResourceAttributes:
    """Return the attributes of an operation that grants look at."""
    metadata = indexed(operation._created_metadata)
    return ResourceAttributes(operation.id, operation.owner, operation.kind, operation.tags, metadata)


def attributes_of_new(new: NewOperation) -> ResourceAttributes:
    """Return the attributes that an operation will have. One without an id can't be covered by a grant by id."""
    return ResourceAttributes(new.id or "", new.owner, new.kind, new.tags, indexed(new.metadata))


def read_attributes(operation: str, values: list[bytes | None]) -> ResourceAttributes | None:
    """Return an operation's attributes from the values of `ATTRIBUTE_FIELDS`; None if it does not exist."""
    spec, indexes = values
    if spec is None and indexes is None:
        return None
    created = (indexes or b"").decode("utf-8", "replace").partition("\n\n")[0]  # changed metadata follows
    pairs = [line.partition(":")[::2] for line in created.split("\n")]
    metadata = [value for name, value in pairs if name == FIELD]
    if spec is not None:
        created_with = _given(spec)
        return ResourceAttributes(operation, created_with.owner, created_with.kind, created_with.tags, metadata)
    first = dict(reversed(pairs))
    tags = [value for name, value in pairs if name == "tag"]
    return ResourceAttributes(operation, first.get("owner"), first.get("kind"), tags, metadata)


def read_snapshot(operation: str, values: list[bytes | None]) -> Operation:
    """Return the operation from the values of `FIELDS`; raise `NotFound` or `Gone` if it does not exist.

    Workers in any language write this hash. An invalid part is left out, so that the rest can still be shown.
    """
    fields: Mapping[str, bytes | None] = dict(zip(FIELDS, values, strict=True))
    if fields["gone"] is not None:
        raise Gone(f"operation {operation} was deleted")
    if fields["spec"] is None:
        raise missing(operation)
    check_schema_of(operation, fields["schema"])
    try:
        return _read(operation, fields)
    except (KeyError, ValueError, TypeError, OverflowError, OSError, InvalidInput) as error:
        warn_once(f"the data of operation {operation} in Redis is invalid", str(error).partition("\n")[0])
        raise overwritten(operation) from None


STANDING_FIELDS = ("gone", "schema", "status", "created", "has_children")


def read_standing(values: list[bytes | None] | None) -> Standing | None:
    """Return where an operation stands from the values of `STANDING_FIELDS`, or None if they are not an operation's."""
    gone, schema, status, created, children = values or [None] * len(STANDING_FIELDS)
    if gone is not None or schema != str(SCHEMA).encode():
        return None
    try:
        return Standing(Status((status or b"").decode()), _moment(int(created or b"")), children is not None)
    except (ValueError, OverflowError, OSError):
        return None


def has_children(values: list[bytes | None]) -> bool:
    """Return whether an operation has children, from the values of `FIELDS`."""
    return values[FIELDS.index("has_children")] is not None


def _read(operation: str, fields: Mapping[str, bytes | None]) -> Operation:
    given = _given(fields["spec"])
    outcome = _object(fields["outcome"]) or {}
    worker, position = fields["worker"], fields["position"] or b""
    status = Status((fields["status"] or b"").decode())
    parse(position.decode())
    created_metadata = _object(fields["created_metadata"])
    metadata = _object(fields["metadata"])
    read = Operation(
        id=operation,
        kind=given.kind,
        title=given.title,
        owner=given.owner,
        tags=given.tags,
        metadata=(created_metadata or {}) if metadata is None else metadata,
        parent=given.parent,
        weight=given.weight,
        status=status,
        done=status.done,
        attempt=_count(fields["attempt"] or b"1"),
        worker=worker.decode("utf-8", "replace") if worker else None,
        cancel_requested=fields["cancel"] is not None,
        cancel=_cancel(fields["cancel"], fields["cancel_at"]),
        progress=_object(fields["progress"]),
        result=outcome.get("result"),
        error=_error(outcome.get("error")),
        created_at=_moment(int(fields["created"] or 0)),
        started_at=_time(fields["started"]),
        updated_at=_moment(milliseconds(position)),
        finished_at=_time(fields["finished"]),
        # Not until now: a state that is read twice is the same, and so are its ETag and what is sent to streams.
        elapsed_ms=_elapsed_ms(fields["started"], int(fields["finished"] or milliseconds(position))),
        expires_at=_time(fields["expires"]) if status.done else None,
        position=position.decode(),
        events=_count(fields["n"] or b"0"),
    )
    if created_metadata:
        read._created_metadata = created_metadata
    return read


def _count(digits: bytes) -> int:
    count = int(digits)
    if not 0 <= count < _COUNTS:
        raise ValueError(f"{count} is out of range")
    return count


def _error(value: object) -> dict[str, Any] | None:
    return value if value is None or isinstance(value, dict) else {"type": "malformed", "message": str(value)[:1000]}


def _cancel(data: bytes | None, at: bytes | None) -> CancelShown | None:
    if data is None or at is None:
        return None
    cancel, patience_s = read_cancel(data), (_object(data) or {}).get("force_cancel_after_s")
    valid = isinstance(patience_s, int | float) and 0 <= patience_s <= _LONGEST_S
    overdue_ms = int(at) + (round(1000 * patience_s) if valid else 0)  # type: ignore[operator]
    return CancelShown(
        reason=cancel.reason, by=cancel.by, requested_at=_moment(int(at)), overdue_at=_moment(overdue_ms)
    )


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _time(ms: bytes | None) -> datetime | None:
    return None if ms is None else _moment(int(ms))


def _elapsed_ms(started: bytes | None, until_ms: int) -> int | None:
    return None if started is None else max(0, until_ms - int(started))


def _given(spec: bytes | None) -> NewOperation:
    fields = _object(spec) or {}
    try:  # a later release may have written more fields
        return NewOperation.model_validate({name: fields[name] for name in fields if name in NewOperation.model_fields})
    except ValidationError:
        return NewOperation.model_validate({"kind": "malformed"})


def _object(data: bytes | None) -> dict[str, Any] | None:
    """Return a JSON object that a worker wrote, or None if it is not a valid object."""
    try:
        value = orjson.loads(data) if data is not None else None
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and fits_nesting_limit(value) else None
