"""An operation that was exported, as one that is created and published now: with new positions."""

import re
from collections.abc import Iterable, Iterator

import orjson
from pydantic import ValidationError

from progress_broker.errors import InvalidInput
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import EVENT_TYPE, MAX_TAGS, RESERVED_TYPES, TERMINAL, NewOperation, Status
from progress_broker.transfer.format import ExportedEvent, ExportedOperation

END_DATA = orjson.dumps(
    {
        "status": "failed",
        "result": None,
        "error": {"type": "moved", "message": "it had not ended when it was exported, and was ended by its import"},
    }
)
"""The data of the end of an operation that had none."""
_RUNNING = NewEvent("status", b'{"status":"running"}', "running")
_TAG = "replay_of"
_TYPE = re.compile(EVENT_TYPE)


def new_operation(operation: ExportedOperation, id: str) -> NewOperation:
    """Return the operation to create, with a tag that names the first one. It has no lease and no parent.

    Raises `InvalidInput` if what the first one was created with is not valid.
    """
    fields = operation.fields
    try:
        spec = orjson.loads(fields[b"spec"])
        given = {name: spec[name] for name in ("kind", "title", "owner", "tags", "history_length") if name in spec}
        given["tags"] = [*given.get("tags", ())[: MAX_TAGS - 1], f"{_TAG}:{operation.id}"[:200]]
        metadata = orjson.loads(fields.get(b"created_metadata", b"{}"))
        return NewOperation.model_validate(given | {"id": id, "metadata": metadata, "lease_s": None})
    except (ValidationError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise InvalidInput(f"what operation {operation.id} was created with is not valid") from None


def entries(events: Iterable[ExportedEvent], producer: str) -> Iterator[NewEvent]:
    """Yield what publishes events again.

    What only the broker publishes is left out: that an operation is pending, stalled or cancelling, or has a child.
    Each event has the number of the first one as its `seq`, so that to publish it twice stores it once.
    """
    for event in events:
        entry = _entry(event)
        if entry is not None:
            yield entry.numbered(producer, event.n)


def _entry(event: ExportedEvent) -> NewEvent | None:
    kind, data = event.type.decode("utf-8", "replace"), event.data
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    said = value.get("status") if isinstance(value, dict) else None
    if kind == "status":
        return _RUNNING if said == Status.RUNNING else None
    if kind == "end":
        return NewEvent(kind, data, said) if said in TERMINAL else None
    known = kind == "metadata" or kind not in RESERVED_TYPES
    return NewEvent(kind, data) if known and _TYPE.fullmatch(kind) else None
