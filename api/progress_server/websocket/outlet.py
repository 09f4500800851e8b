"""The outlet of a subscription over a WebSocket that several subscriptions share. Frames are sent as JSON text."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import orjson

from progress_broker.model.event import END
from progress_broker.stream.frames import Frame
from progress_broker.stream.subscription import Subscription

_RECONNECT = b"reconnect"
_SILENT = frozenset({b"", b"ping"})  # the WebSocket has its own open message and pings; they are not sent per operation


class Away(NamedTuple):
    """Why a client is asked to reconnect, and after which delay."""

    reason: str
    retry_ms: int


class Said(NamedTuple):
    """Encoded frames, as passed to an outlet of a WebSocket."""

    texts: Sequence[str]
    size: int
    end: bool = False
    """Whether the last frame is the operation's end."""
    away: Away | None = None


class Wrapped:
    """Encodes events as `{"id": …, "event": …, "data": …}`, with the envelope as data.

    Frames without a position have no `id`.
    """

    def encode(self, frames: Sequence[Frame]) -> Said:
        """Return the messages."""
        if frames[0].type == _RECONNECT:  # such a frame is always the only one
            return Said((), 0, away=_away(frames[0]))
        wrapped = [_wrap(frame) for frame in frames if frame.type not in _SILENT]
        return Said([text.decode() for text in wrapped], sum(map(len, wrapped)), end=frames[-1].type == END)


WRAPPED = Wrapped()


def _wrap(frame: Frame) -> bytes:
    if frame.wire.startswith(b"id: "):
        return b'{"id":"%b","event":"%b","data":%b}' % (frame.position, frame.type, frame.envelope)
    return b'{"event":"%b","data":%b}' % (frame.type, frame.envelope)


def _away(frame: Frame) -> Away:
    fields = dict(line.split(b": ", 1) for line in frame.wire.strip().split(b"\n"))
    return Away(orjson.loads(fields[b"data"])["reason"], int(fields[b"retry"]))


class Carrier(Protocol):
    """The methods of the WebSocket that its outlets call."""

    def carry(self, said: Said) -> None:
        """Send the frames; pause the subscriptions if the send buffer is full."""

    def left(self, member: "WebSocketMember", why: str) -> None:
        """Remove a member whose subscription has ended."""

    def abort(self, reason: str) -> None:
        """Cut the connection."""


class WebSocketMember:
    """The outlet of one subscription over a WebSocket."""

    kind = "websocket"
    encoding = WRAPPED

    def __init__(self, subscription: Subscription, carrier: Carrier) -> None:
        self.subscription = subscription
        self._carrier = carrier
        self._why = "draining"  # the reason if the subscription ends before it has sent anything

    @property
    def operation(self) -> str:
        """The operation whose events it carries."""
        return self.subscription.operation

    def write(self, said: Said) -> None:
        """Pass frames to the WebSocket, or keep the reason of a `reconnect` for the close."""
        if said.away is not None:
            self._why = said.away.reason
        else:
            if said.end:
                self._why = "ended"
            self._carrier.carry(said)

    def close(self) -> None:
        """Report the end to the WebSocket, which stays open for its other members."""
        self._carrier.left(self, self._why)

    def abort(self) -> None:
        """Abort the whole WebSocket: its client reads nothing."""
        self._carrier.abort("stuck")
