"""Frames as JSON text messages: made once for all sockets, by joining bytes."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from progress_broker.model.event import END
from progress_broker.stream.frames import Frame

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
