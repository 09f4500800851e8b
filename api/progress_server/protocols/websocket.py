"""uvicorn's WebSocket protocol, that keeps no client which takes nothing for ever.

Of uvicorn's three it is the sans-IO one, which `auto` means too: its `send` waits until the transport has room, so that
an application knows how fast its client is, and it reads no further while a message has not been taken. The oldest is
deprecated, and wsproto's not always installed. What it leaves open matters where clients are hostile: an application
can't cut a connection, one that is closed while its client takes nothing stays, and what came at once is not bounded.

Run it with `uvicorn --ws progress_server.protocols.websocket:BoundedProtocol …`; `progress-broker serve` does. Without
it all else works.
"""

import logging
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

ABORT = "progress_broker.abort"
"""The key among the scope's `extensions`: a function that cuts the connection."""

MAX_QUEUED = 2_000
"""Messages that came at once and wait to be taken; a client that sends more is sent away."""

_MAX_FRAGMENTS = 100
_LINGER_S = 5.0
_POLICY = 1008
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _AtDebug(logging.LoggerAdapter[logging.Logger]):
    """Tells of each handshake where requests are told of, at debug."""

    def info(self, *args: Any, **options: Any) -> None:
        self.debug(*args, **options)

    @property
    def level(self) -> int:
        return self.logger.level


class BoundedProtocol(WebSocketsSansIOProtocol):
    """A WebSocket's server side."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.conn.logger = _AtDebug(self.logger)  # type: ignore[assignment]
        self.conn.debug = False  # it would log what is said, with its secrets

    def data_received(self, data: bytes) -> None:
        """Take what comes. uvicorn hands the head over whole; one that the library can't read would stay for ever."""
        super().data_received(data)
        if not (self.handshake_initiated or self.transport.is_closing()):
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_REQUEST)
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Begin; offer the application to cut the connection."""
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[ABORT] = self.transport.abort

    async def send(self, message: Any) -> None:
        """Send, and see to it that a close is the end."""
        try:
            await super().send(message)
        except RuntimeError:  # it was closed from below meanwhile
            if self.close_sent or self.transport.is_closing():
                raise ClientDisconnected from None
            raise
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """Cut it: what is written to a client that does not answer would wait for ever."""
        super().keepalive_timeout()
        self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        """Take a piece of a message, of which there may be many, but not endlessly many."""
        if len(self.frames) < _MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._send_away("a message in too many pieces")

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the application."""
        if self.queue.qsize() < MAX_QUEUED:
            super().send_receive_event_to_app()
        else:
            self._send_away("too many messages at once")

    def _send_away(self, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.fail(_POLICY, reason)
            self.handle_parser_exception()
