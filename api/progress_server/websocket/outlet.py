"""The way out of one subscription: frames as JSON text, over a socket that it shares with other subscriptions."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import orjson

from progress_broker.model.event import END
from progress_broker.stream.frames import Frame
from progress_broker.stream.subscription import Subscription

_RECONNECT = b"reconnect"
_SILENT = frozenset({b"", b"ping"})  # a socket is opened and pinged as a whole, not for each operation


class Away(NamedTuple):
    """Why a client is sent away, and when it may come back."""

    reason: str
    retry_ms: int


class Said(NamedTuple):
    """What a socket's outlet is handed."""

    texts: Sequence[str]
    size: int
    end: bool = False
    """Whether the operation's end is the last of it."""
    away: Away | None = None


class Wrapped:
    """An event as `{"id": …, "event": …, "data": …}`, with the envelope as data. What has no position has no `id`."""

    def encode(self, frames: Sequence[Frame]) -> Said:
        """Return the messages."""
        if frames[0].type == _RECONNECT:  # it is always alone
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
    """What a member asks of its socket."""

    def carry(self, said: Said) -> None:
        """Send it; tell those who send to stop when there is no more room."""

    def left(self, member: "Member", why: str) -> None:
        """Let go of a member whose subscription has ended."""

    def abort(self, reason: str) -> None:
        """Cut the connection."""


class Member:
    """The outlet of a subscription over a socket."""

    kind = "websocket"
    encoding = WRAPPED

    def __init__(self, subscription: Subscription, carrier: Carrier) -> None:
        self.subscription = subscription
        self._carrier = carrier
        self._why = "draining"  # what ends a subscription before it has been told anything

    @property
    def operation(self) -> str:
        """Whose events it carries."""
        return self.subscription.operation

    def write(self, said: Said) -> None:
        """Pass it on."""
        if said.away is not None:
            self._why = said.away.reason
        else:
            if said.end:
                self._why = "ended"
            self._carrier.carry(said)

    def close(self) -> None:
        """Tell the socket, which goes on with the others."""
        self._carrier.left(self, self._why)

    def abort(self) -> None:
        """Cut the whole socket: its client takes nothing."""
        self._carrier.abort("stuck")
