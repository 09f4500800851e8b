"""Turns what `tail --json` prints into events to publish, so that an operation can be copied."""

from typing import Any

from progress_broker.model.operation import RESERVED_TYPES, Status

_ENVELOPE = {"operation", "n", "type", "time", "data"}
_OUTCOME = ("status", "result", "error")


def to_events(value: object) -> list[object]:
    """Return the events of a line: those that an envelope stands for, or else the line's value itself.

    What only the broker publishes is left out: that the operation is pending, stalled or cancelling, has a child, or
    that an event is malformed. A snapshot stands for the progress. If the operation has ended, its end follows.
    """
    if not isinstance(value, dict) or not value.keys() >= _ENVELOPE:
        return [value]
    kind, data = value["type"], value["data"]
    if kind == "snapshot" and isinstance(data, dict):
        return list(_of_snapshot(data))
    if kind == "status":
        running = isinstance(data, dict) and data.get("status") == Status.RUNNING
        return [_event("status", {"status": Status.RUNNING})] if running else []
    if kind == "end" and isinstance(data, dict):
        return [_event("end", _outcome(data))]
    return [] if kind in RESERVED_TYPES else [_event(kind, data)]


def _of_snapshot(operation: dict[str, Any]) -> list[object]:
    events: list[object] = []
    if operation.get("started_at") is not None:
        events.append(_event("status", {"status": Status.RUNNING}))
    if operation.get("progress") is not None:
        events.append(_event("progress", operation["progress"]))
    return events


def _outcome(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in _OUTCOME if name in data}


def _event(kind: object, data: object) -> dict[str, object]:
    return {"type": kind, "data": data}
