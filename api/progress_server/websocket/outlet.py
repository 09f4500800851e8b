"""The outlet of a subscription over a WebSocket that several subscriptions share. Frames are sent as JSON text."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import orjson

from progress_broker.model.event import END
from progress_broker.stream.frames import Frame
from progress_broker.stream.subscription import Subscription

_RECONNECT = b"reconnect"
_SILENT = frozenset({b"", b"ping"})  # the WebSocket has its own open message and pings; they are not sent per operation


class Reconnect(NamedTuple):
    """Why a client is asked to reconnect, and after which delay."""

    reason: str
    retry_ms: int


class EncodedFrames(NamedTuple):
    """Encoded frames, as passed to the outlet of a subscription over a WebSocket."""

    texts: Sequence[str]
    size: int
    end: bool = False
    """Whether the last frame is the operation's end."""
    reconnect: Reconnect | None = None


class Wrapped:
    """Encodes events as `{"id": …, "event": …, "data": …}`, with the envelope as data.

    Frames without a position have no `id`.
    """

    def encode(self, frames: Sequence[Frame]) -> EncodedFrames:
        """Return the messages."""
        if frames[0].type == _RECONNECT:  # such a frame is always the only one
            return EncodedFrames((), 0, reconnect=_reconnect(frames[0]))
        wrapped = [_wrap(frame) for frame in frames if frame.type not in _SILENT]
        return EncodedFrames([text.decode() for text in wrapped], sum(map(len, wrapped)), end=frames[-1].type == END)


WRAPPED = Wrapped()


def _wrap(frame: Frame) -> bytes:
    if frame.wire.startswith(b"id: "):
        return b'{"id":"%b","event":"%b","data":%b}' % (frame.position, frame.type, frame.envelope)
    return b'{"event":"%b","data":%b}' % (frame.type, frame.envelope)


def _reconnect(frame: Frame) -> Reconnect:
    fields = dict(line.split(b": ", 1) for line in frame.wire.strip().split(b"\n"))
    return Reconnect(orjson.loads(fields[b"data"])["reason"], int(fields[b"retry"]))


class SharedSocket(Protocol):
    """What its outlets use of the WebSocket."""

    client: str

    def send(self, encoded: EncodedFrames) -> None:
        """Send the frames; pause the subscriptions if the send buffer is full."""

    def left(self, member: "WebSocketMember", reason: str) -> None:
        """Remove the outlet of a subscription that has ended, for `reason`.

        If only its operation has ended, the WebSocket stays open; otherwise it closes.
        """

    def abort(self, reason: str) -> None:
        """Cut the connection."""


class WebSocketMember:
    """The outlet of one subscription over a WebSocket: a WebSocket has one of these per operation that it follows."""

    kind = "websocket"
    encoding = WRAPPED

    def __init__(self, subscription: Subscription, socket: SharedSocket) -> None:
        self.subscription = subscription
        self._socket = socket
        self._reason = "draining"  # the reason if the subscription ends before it has sent anything

    @property
    def operation(self) -> str:
        """The operation whose events it carries."""
        return self.subscription.operation

    @property
    def client(self) -> str:
        """The client's address, or its network for IPv6."""
        return self._socket.client

    def write(self, encoded: EncodedFrames) -> None:
        """Pass frames to the WebSocket, or keep the reason of a `reconnect` for the close."""
        if encoded.reconnect is not None:
            self._reason = encoded.reconnect.reason
        else:
            if encoded.end:
                self._reason = "ended"
            self._socket.send(encoded)

    def close(self) -> None:
        """Report the subscription's end to the WebSocket, which stays open for its other subscriptions."""
        self._socket.left(self, self._reason)

    def abort(self) -> None:
        """Abort the whole WebSocket, because its client reads nothing."""
        self._socket.abort("stuck")
