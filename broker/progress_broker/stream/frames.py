"""Frames: events as server-sent ones, bytes joined once and shared by every subscriber."""

import re
from dataclasses import dataclass

import orjson

from progress_broker.model.event import CHILDREN, END, PROGRESS, SNAPSHOT, Event
from progress_broker.model.operation import EVENT_TYPE, RESERVED_TYPES, TERMINAL, Operation
from progress_broker.model.validation import showable
from progress_broker.storage.foreign import warn_once

_TYPE = re.compile(EVENT_TYPE.encode())
_COMMON = frozenset({PROGRESS, b"log", b"status", END})
# Not `child`, which the broker publishes itself, and not `malformed`, which is what one becomes.
_RESERVED = frozenset(type.encode() for type in RESERVED_TYPES - {"child", "malformed"})
_HEAD_BYTES = len(b"id: \nevent: \ndata: ")


@dataclass(slots=True, eq=False)  # not frozen, which would double the cost of making one
class Frame:
    """What subscribers are handed: one server-sent event, whole. Control frames have no position and n = 0."""

    n: int
    position: bytes
    type: bytes
    wire: bytes
    envelope_at: int = 0
    packed: bytes | None = None
    """It compressed, once an encoding has made that of it: for all who are sent it, now and from the ring."""
    without_id: "Frame | None" = None
    """It without its `id:` line, once somebody who has ids of their own was sent it; the same for all of them."""

    @property
    def envelope(self) -> bytes:
        """The event as one JSON object, as the `data:` line holds it."""
        return self.wire[self.envelope_at : -2]


def strip_id(frame: Frame) -> Frame:
    """Return a frame without its `id:` line: itself, if it has none."""
    if frame.without_id is None:
        line = b"id: %b\n" % frame.position
        if frame.wire.startswith(line):
            wire, envelope_at = frame.wire[len(line) :], frame.envelope_at - len(line)
            frame.without_id = Frame(frame.n, frame.position, frame.type, wire, envelope_at)
        else:
            frame.without_id = frame
    return frame.without_id


def id_frame(id: bytes) -> Frame:
    """Return the line that gives the event whose frame follows it an id."""
    return Frame(0, b"", b"", b"id: %b\n" % id)


def told_frame(type: bytes, data: object) -> Frame:
    """Return the frame of what a stream tells of itself; without an id, so that a client keeps its position."""
    head = b"event: %b\ndata: " % type
    return Frame(0, b"", type, b"%b%b\n\n" % (head, orjson.dumps(data)), len(head))


def make_frame(event: Event) -> Frame:
    """Return the frame of an event. Whatever its payload holds, the framing stands: what is not JSON is replaced."""
    operation, position, n, type, data, _ = event
    # A strict parse costs a microsecond and vouches for UTF-8, for control characters and for what clients will parse.
    try:
        value = orjson.loads(data)
        if type not in _COMMON:
            _check_type(type)
        if type == END and not _is_outcome(value):
            raise ValueError("its data is not an outcome")
        if b"\n" in data or b"\r" in data:  # between tokens, as pretty-printers put them
            data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    except ValueError as error:
        reason = "its data is not JSON" if isinstance(error, orjson.JSONDecodeError) else str(error)
        warn_once(f"operation {operation.decode('utf-8', 'replace')} has an event that can't be shown", reason)
        type, data = _replaced(type, data, reason)
    wire = b'id: %b\nevent: %b\ndata: {"operation":"%b","n":%d,"type":"%b","time":%b,"data":%b}\n\n' % (
        position,
        type,
        operation,
        n,
        type,
        position[: position.index(b"-")],  # Redis' IDs begin with its time in milliseconds
        data,
    )
    return Frame(n, position, type, wire, len(position) + len(type) + _HEAD_BYTES)


def _check_type(type: bytes) -> None:
    if type in _RESERVED:
        raise ValueError("its type is reserved")
    if _TYPE.fullmatch(type) is None:
        raise ValueError("its type is not a name")


def _is_outcome(value: object) -> bool:
    status = value.get("status") if isinstance(value, dict) else None
    return isinstance(status, str) and status in TERMINAL


def _replaced(type: bytes, data: bytes, reason: str) -> tuple[bytes, bytes]:
    """Return what stands in for an event that can't be shown. An end stays one, or its stream would never close."""
    if type != END:
        return b"malformed", orjson.dumps({"reason": reason, "bytes": len(data)})
    try:
        outcome = orjson.loads(data.decode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        outcome = None
    if not (_is_outcome(outcome) and showable(outcome)):
        outcome = {"status": "failed", "result": None, "error": {"type": "malformed", "message": reason}}
    return type, orjson.dumps(outcome)


def snapshot_frame(operation: Operation, reset: str | None = None) -> Frame:
    """Return the frame that tells the whole operation, and why it is told again: `trimmed` or `lost` history.

    That of an ended operation has no id: a client cut off before the `end` that follows must not take it for seen.
    """
    envelope: dict[str, object] = {
        "operation": operation.id,
        "n": operation.events,
        "type": "snapshot",
        "time": int(operation.position.partition("-")[0]),
        "data": operation.model_dump(mode="json"),
    }
    if reset is not None:
        envelope["reset"] = reset
    identifier = b"" if operation.done else b"id: %b\n" % operation.position.encode()
    head = identifier + b"event: snapshot\ndata: "
    wire = head + orjson.dumps(envelope) + b"\n\n"
    return Frame(operation.events, operation.position.encode(), SNAPSHOT, wire, len(head))


PING = Frame(0, b"", b"ping", b": ping\n\n")
PING_EVENT = Frame(0, b"", b"ping", b"event: ping\ndata: {}\n\n")


def opening_frame(retry_ms: int) -> Frame:
    """Return a stream's first bytes: they open it through every proxy, and tell how soon to reconnect."""
    return Frame(0, b"", b"", b"retry: %d\n: connected\n\n" % retry_ms)


def reconnect_frame(reason: str, retry_ms: int) -> Frame:
    """Return the frame that sends a client away for a passing reason; without an id, so it keeps its position."""
    data = orjson.dumps({"reason": reason})
    return Frame(0, b"", b"reconnect", b"retry: %d\nevent: reconnect\ndata: %b\n\n" % (retry_ms, data))


def children_frame(parent: str, time_ms: int, data: bytes) -> Frame:
    """Return the frame that tells where an operation's children stand: it has no id, for it is no event of the log."""
    head = b"event: children\ndata: "
    wire = b'%b{"operation":"%b","type":"children","time":%d,"data":%b}\n\n' % (head, parent.encode(), time_ms, data)
    return Frame(0, b"", CHILDREN, wire, len(head))
