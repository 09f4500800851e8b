"""Frames: events encoded as Server-Sent Events. Each is encoded once, and all subscribers share the bytes."""

import re
from dataclasses import dataclass
from functools import lru_cache

import orjson

from progress_broker.model.event import BOOKMARK, CHILDREN, END, PROGRESS, SNAPSHOT, Event, LastEvent
from progress_broker.model.operation import EVENT_TYPE, RESERVED_TYPES, TERMINAL, Operation
from progress_broker.model.position import milliseconds
from progress_broker.model.validation import fits_nesting_limit
from progress_broker.storage.foreign import warn_once

_TYPE = re.compile(EVENT_TYPE.encode())
_COMMON = frozenset({PROGRESS, b"log", b"status", END})
# Without `child`, which the broker publishes itself, and `malformed`, which replaces an invalid event.
_RESERVED = frozenset(type.encode() for type in RESERVED_TYPES - {"child", "malformed"})
_HEAD_BYTES = len(b"id: \nevent: \ndata: ")


@dataclass(slots=True, eq=False)  # not frozen: that would double the cost of creating one
class Frame:
    """One complete Server-Sent Event. Control frames have no position and n = 0."""

    n: int
    position: bytes
    type: bytes
    wire: bytes
    envelope_at: int = 0
    packed: bytes | None = None
    """The compressed bytes, once an encoding has produced them. All clients that get this frame share them."""
    without_id: "Frame | None" = None
    """The same frame without its `id:` line, once a stream with its own ids needed it. All such streams share it."""

    @property
    def envelope(self) -> bytes:
        """The JSON object in the `data:` line."""
        return self.wire[self.envelope_at : -2]


def strip_id(frame: Frame) -> Frame:
    """Return the frame without its `id:` line, or the frame itself if it has none."""
    if frame.without_id is None:
        line = b"id: %b\n" % frame.position
        if frame.wire.startswith(line):
            wire, envelope_at = frame.wire[len(line) :], frame.envelope_at - len(line)
            frame.without_id = Frame(frame.n, frame.position, frame.type, wire, envelope_at)
        else:
            frame.without_id = frame
    return frame.without_id


def id_frame(id: bytes) -> Frame:
    """Return an `id:` line; the frame that follows it gets this id."""
    return Frame(0, b"", b"", b"id: %b\n" % id)


def control_frame(type: bytes, data: object) -> Frame:
    """Return a control frame. It has no id, so the client keeps its position."""
    head = b"event: %b\ndata: " % type
    return Frame(0, b"", type, b"%b%b\n\n" % (head, orjson.dumps(data)), len(head))


def make_frame(event: Event) -> Frame:
    """Return the frame of an event. Invalid data is replaced, so that no payload can break the framing."""
    operation, position, n, type, data, _, _ = event
    # A strict parse costs a microsecond. It proves that the data is UTF-8 without control characters, and that clients
    # can parse it.
    try:
        value = orjson.loads(data)
        if type not in _COMMON:
            _check_type(type)
        if type == END and not _is_outcome(value):
            raise ValueError("its data is not an outcome")
        if b"\n" in data or b"\r" in data:  # between tokens, as in indented JSON
            data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    except ValueError as error:
        reason = "its data is not JSON" if isinstance(error, orjson.JSONDecodeError) else str(error)
        warn_once(f"operation {operation.decode('utf-8', 'replace')} has an invalid event", reason)
        type, data = _replaced(type, data, reason)
    wire = b'id: %b\nevent: %b\ndata: {"operation":"%b","n":%d,"type":"%b","time":%b,"data":%b}\n\n' % (
        position,
        type,
        operation,
        n,
        type,
        position[: position.index(b"-")],  # a Redis stream ID begins with the time in milliseconds
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
    """Return the replacement for an invalid event. An `end` stays an `end`, or its stream would never close."""
    if type != END:
        return b"malformed", orjson.dumps({"reason": reason, "bytes": len(data)})
    try:
        outcome = orjson.loads(data.decode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        outcome = None
    if not (_is_outcome(outcome) and fits_nesting_limit(outcome)):
        outcome = {"status": "failed", "result": None, "error": {"type": "malformed", "message": reason}}
    return type, orjson.dumps(outcome)


def snapshot_frame(operation: Operation, reset: str | None = None, at: LastEvent | None = None) -> Frame:
    """Return the frame of a snapshot. `reset` is why the client can't resume: `trimmed` or `lost` history.

    `at` is the last event that the client and the log share, if there is one: the frame then has its `n` and id, and
    all events after it follow, although the state is newer. Otherwise the frame has no id if the operation has ended: a
    client that disconnects before it gets the `end` must not resume after it.
    """
    n, position = operation.events, operation.position.encode()
    resumable = not operation.done
    if at is not None and at.n < n:
        (n, position), resumable = at, True
    envelope: dict[str, object] = {
        "operation": operation.id,
        "n": n,
        "type": "snapshot",
        "time": int(operation.position.partition("-")[0]),
        "data": operation.model_dump(mode="json"),
    }
    if reset is not None:
        envelope["reset"] = reset
    identifier = b"id: %b\n" % position if resumable else b""
    head = identifier + b"event: snapshot\ndata: "
    wire = head + orjson.dumps(envelope) + b"\n\n"
    return Frame(n, position, SNAPSHOT, wire, len(head))


# A comment, and `retry`, are not followed by an empty line: they join the next event. Of a block without data several
# clients (httpx-sse, aiosseclient) make an empty `message` event.
PING = Frame(0, b"", b"ping", b": ping\n")
PING_EVENT = Frame(0, b"", b"ping", b"event: ping\ndata: {}\n\n")


def opening_frame(retry_ms: int) -> Frame:
    """Return a stream's first bytes. They make proxies forward the response, and set the reconnect delay."""
    return Frame(0, b"", b"", b"retry: %d\n: connected\n" % retry_ms)


def reconnect_frame(reason: str, retry_ms: int) -> Frame:
    """Return the frame that asks a client to reconnect. It has no id, so the client keeps its position."""
    return Frame(0, b"", b"reconnect", b"retry: %d\n%b" % (retry_ms, _reconnect_event(reason)))


@lru_cache(maxsize=64)
def _reconnect_event(reason: str) -> bytes:
    return b"event: reconnect\ndata: %b\n\n" % orjson.dumps({"reason": reason})


def bookmark_frame(operation: str, n: int, position: bytes, *, live: bool) -> Frame:
    """Return the frame that moves a client's position to the n-th event, although no event of the log is sent.

    Everything up to the position that the client asked for has been sent. `live` says that this is all there is so far.
    """
    head = b"id: %b\nevent: bookmark\ndata: " % position
    data = b'{"live":true}' if live else b"{}"
    wire = b'%b{"operation":"%b","n":%d,"type":"bookmark","time":%d,"data":%b}\n\n' % (
        head,
        operation.encode(),
        n,
        milliseconds(position),
        data,
    )
    return Frame(0, position, BOOKMARK, wire, len(head))


def children_frame(parent: str, time_ms: int, data: bytes) -> Frame:
    """Return the frame with the state of an operation's children. It has no id, because it is not in the log."""
    head = b"event: children\ndata: "
    wire = b'%b{"operation":"%b","type":"children","time":%d,"data":%b}\n\n' % (head, parent.encode(), time_ms, data)
    return Frame(0, b"", CHILDREN, wire, len(head))
