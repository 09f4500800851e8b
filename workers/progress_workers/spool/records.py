"""What is spooled, as JSON: how to open an operation, and publishes.

Both have the `key` of their reporter, so that a publish is sent with the attempt that the opening has found.
"""

from functools import cache
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Publish
from progress_workers.core.opening import Opening

R = TypeVar("R", Opening, Publish)


def encode(key: str, record: Opening | Publish) -> bytes:
    """Return a record as JSON."""
    fields = record._asdict()
    if isinstance(record, Opening):
        # Only what was given: the creation is stored as these bytes, and repeating it must not change them.
        fields["new"] = None if record.new is None else record.new.model_dump(mode="json", exclude_unset=True)
        return orjson.dumps({"key": key, "open": fields})
    del fields["after"]  # what would be sent again is not kept longer than its process
    fields["entries"] = [
        [entry.type, entry.data.decode(), entry.status, entry.producer, entry.seq, entry.count]
        for entry in record.entries
    ]
    return orjson.dumps({"key": key, "publish": fields})


def decode(data: bytes) -> tuple[str, Opening | Publish]:
    """Return the key and the record; raise `ValueError` or `TypeError` for what this program did not write."""
    found: dict[str, Any] = orjson.loads(data)
    if "open" in found:
        fields = found["open"]
        new = fields["new"]
        opening = Opening(**fields | {"new": None if new is None else NewOperation.model_validate(new)})
        return str(found["key"]), _checked(Opening, opening)
    fields = found["publish"]
    if not all(isinstance(part, str) for row in fields["entries"] for part in row[:4]):
        raise TypeError("an event's type, data, status or producer is not a text")
    entries = [
        NewEvent(type, text.encode(), status, producer, seq, None if count is None else (count[0], count[1]))
        for type, text, status, producer, seq, count in fields["entries"]
    ]
    return str(found["key"]), _checked(Publish, Publish(**fields | {"entries": entries}))


def _checked(kind: type[R], record: R) -> R:
    """Return a record whose fields have the types that they should have."""
    _adapters()[kind].validate_python(record, strict=True)
    return record


@cache
def _adapters() -> dict[type[Any], TypeAdapter[Any]]:
    return {kind: TypeAdapter(kind) for kind in (Opening, Publish)}
