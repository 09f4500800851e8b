"""The state that an operation had after each of its events. No I/O happens here."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from progress_broker.model.metadata import merged
from progress_broker.model.operation import TERMINAL, Status
from progress_broker.model.position import milliseconds
from progress_broker.storage.scripts import SCHEMA
from progress_broker.transfer.files.operation_line import portable
from progress_broker.transfer.format import ExportedEvent, ExportedOperation

Changes = Mapping[bytes, bytes | None]
"""Fields of a snapshot hash that change; None removes one."""

_LATER: Final = (
    *(b"status", b"n", b"position", b"attempt", b"worker", b"started", b"finished", b"cancel", b"cancel_at"),
    *(b"progress", b"outcome", b"counts", b"stage_counts", b"has_children", b"metadata", b"archived", b"curve_ms"),
)
"""Fields that its events change, or that say where older events are: all are in one log here."""
_OF_ATTEMPT: Final = (b"progress", b"counts", b"stage_counts")
"""Fields that a new attempt begins without."""
_STATUSES: Final = frozenset(status.value for status in Status)
_ENDS: Final = frozenset(status.value for status in TERMINAL)


class ReplayedState:
    """The fields of an operation's snapshot hash, from before its first event to what an export has in the end."""

    def __init__(self, operation: ExportedOperation) -> None:
        self._last = operation
        kept = {name: value for name, value in portable(operation.fields).items() if name not in _LATER}
        begun = {b"schema": b"%d" % SCHEMA, b"status": b"pending", b"attempt": b"1", b"n": b"0", b"position": b"0-0"}
        self.fields: dict[bytes, bytes] = {b"indexes": operation.indexes} | kept | begun

    @property
    def status(self) -> str:
        """The status."""
        return self.fields[b"status"].decode()

    def take(self, event: ExportedEvent) -> Changes:
        """Take the next event; return what it changes.

        After the last one the state is that of the export, also where events do not tell all of it: which worker it
        was, or what was published before the oldest event that is kept.
        """
        changes: dict[bytes, bytes | None] = {b"n": b"%d" % event.n, b"position": event.position}
        if event.n == self._last.n:
            last = portable(self._last.fields)
            changes |= {name: last.get(name) for name in _LATER if name not in (b"archived", b"curve_ms")}
        else:
            changes |= self._changes(event)
        for name, value in changes.items():
            if value is None:
                self.fields.pop(name, None)
            else:
                self.fields[name] = value
        return changes

    def _changes(self, event: ExportedEvent) -> Changes:
        match event.type:
            case b"progress":
                return {b"progress": event.data}
            case b"child":
                return {b"has_children": b"1"}
            case b"status" | b"end" | b"metadata":
                value = _object(event.data)
            case _:
                return {}
        if event.type == b"metadata":
            before = self.fields.get(b"metadata") or self.fields.get(b"created_metadata") or b"{}"
            return {b"metadata": orjson.dumps(merged(_object(before), value))}
        return self._status_changes(event, value)

    def _status_changes(self, event: ExportedEvent, value: Mapping[str, Any]) -> Changes:
        status, ms = value.get("status"), b"%d" % milliseconds(event.position)
        if not isinstance(status, str) or status not in _STATUSES or (event.type == b"end") != (status in _ENDS):
            return {}
        changes: dict[bytes, bytes | None] = {b"status": status.encode()}
        if event.type == b"end":
            return changes | {b"outcome": event.data, b"finished": ms}
        if status == Status.CANCELLING:
            return changes | {b"cancel": event.data, b"cancel_at": ms}
        if status == Status.RUNNING:
            changes |= {} if b"started" in self.fields else {b"started": ms}
            attempt, worker = value.get("attempt"), value.get("worker")
            if type(attempt) is int and b"%d" % attempt != self.fields[b"attempt"]:
                changes |= {b"attempt": b"%d" % attempt} | dict.fromkeys(_OF_ATTEMPT)
            if isinstance(worker, str) and worker:
                changes |= {b"worker": worker.encode()}
        return changes


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
