"""What is spooled, as JSON: how to open an operation, and publishes.

Both have the `key` of their reporter, so that a publish is sent with the attempt that the opening has found.
"""

from typing import Any

import orjson

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Publish
from progress_workers.core.opening import Opening


def encode(key: str, record: Opening | Publish) -> bytes:
    """Return a record as JSON."""
    fields = record._asdict()
    if isinstance(record, Opening):
        # Only what was given: the creation is stored as these bytes, and repeating it must not change them.
        fields["new"] = None if record.new is None else record.new.model_dump(mode="json", exclude_unset=True)
        return orjson.dumps({"key": key, "open": fields})
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
        return found["key"], Opening(**fields | {"new": None if new is None else NewOperation.model_validate(new)})
    fields = found["publish"]
    entries = [
        NewEvent(type, text.encode(), status, producer, seq, None if count is None else (count[0], count[1]))
        for type, text, status, producer, seq, count in fields["entries"]
    ]
    return found["key"], Publish(**fields | {"entries": entries})
