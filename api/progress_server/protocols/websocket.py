"""uvicorn's WebSocket protocol, with limits against hostile clients.

uvicorn has three WebSocket protocols. This one extends the sans-IO one, which uvicorn's `auto` chooses too. Its `send`
waits until the transport has room, so an application knows how fast its client reads; and it stops reading until the
application has received the last message. But an application can't cut a connection, a closed connection stays open
while its client reads nothing, and the number of messages that arrive at once is not limited. This class fixes these
three.

`progress-broker serve` runs it; `api/progress_server/protocols/for_uvicorn.py` tells how uvicorn does.
"""

import logging
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from progress_server.protocols.extensions import ABORT

MAX_QUEUED = 2_000
"""Messages that may wait for the application. A client that sends more is disconnected."""

_MAX_FRAGMENTS = 100
_LINGER_S = 5.0
_POLICY, _NOT_TEXT = 1008, 1007
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _AtDebug(logging.LoggerAdapter[logging.Logger]):
    """Logs handshakes at level debug and not info: they are requests, which have their own access log."""

    def info(self, *args: Any, **options: Any) -> None:
        self.debug(*args, **options)

    @property
    def level(self) -> int:
        return self.logger.level


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """The server side of one WebSocket."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.conn.logger = _AtDebug(self.logger)  # type: ignore[assignment]
        self.conn.debug = False  # with `debug` it would log messages, which may contain secrets

    def data_received(self, data: bytes) -> None:
        """Parse received data. If the library can't parse the handshake, close the connection."""
        super().data_received(data)
        if not (self.handshake_initiated or self.transport.is_closing()):
            self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_REQUEST)
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Begin a handshake; give the application a function that cuts the connection."""
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[ABORT] = self.transport.abort

    async def send(self, message: Any) -> None:
        """Send a message; after a close message, the connection ends within a few seconds."""
        try:
            await super().send(message)
        except RuntimeError:  # the connection was closed meanwhile
            if self.close_sent or self.transport.is_closing():
                raise ClientDisconnected from None
            raise
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """Cut the connection: a client that answers no ping would never read the close message."""
        super().keepalive_timeout()
        self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment of a message; disconnect a client that sends too many fragments."""
        if len(self.frames) < _MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self._send_away("the message has too many fragments")

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the application, up to the bound."""
        if self.queue.qsize() >= MAX_QUEUED:
            self._send_away("too many messages at once")
        elif self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self._send_away("a text that is not UTF-8", _NOT_TEXT)  # uvicorn would log an error each time
        else:
            super().send_receive_event_to_app()

    def _send_away(self, reason: str, code: int = _POLICY) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
