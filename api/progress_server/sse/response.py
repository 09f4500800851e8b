"""The response that carries a stream: over an adopted connection if the server offers one, otherwise over ASGI."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cache

from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from progress_broker.errors import RETRYABLE, BrokerError
from progress_broker.stream.outlet import OutletOwner
from progress_broker.stream.stream import Stream
from progress_server.callback.connection import connection_in
from progress_server.context import OUTER, context_of
from progress_server.http.headers import CONNECTION_HEADER, EVENT_STREAM
from progress_server.http.rejections import rejection
from progress_server.limits.slots import address_of, slot_in
from progress_server.protocols.extensions import ADOPTION, Connection, ConnectionOffer
from progress_server.sse.adopted import ChunkedOutlet, Http10Outlet
from progress_server.sse.adopted_gzip import GzipOutlet
from progress_server.sse.asgi import AsgiOutlet, AsgiStream, GzipAsgiOutlet
from progress_server.sse.encodings import accepts_gzip

log = logging.getLogger(__name__)

_ADOPTED = "streams take over their sockets from uvicorn"
_ASGI = (
    "streams are sent over ASGI. With uvicorn they can take over their sockets, which takes less memory and CPU time:"
    " run it with --http progress_server.protocols.for_uvicorn:HTTP"
    " --ws progress_server.protocols.for_uvicorn:WEBSOCKET"
)
_HELD = (
    "a stream is sent over ASGI, although uvicorn offers its socket: middleware of the app, such as BaseHTTPMiddleware,"
    " holds back the head of the response"
)

Opened = Callable[[], Awaitable[None]]

_PLAIN = tuple((name.lower().encode(), value.encode()) for name, value in EVENT_STREAM.items())
_VARIED = (*_PLAIN, (b"vary", b"Accept-Encoding"))
_GZIP = (b"content-encoding", b"gzip")


class StreamResponse(Response):
    """The response of a stream. When it ends, for any reason, it closes the subscription.

    `opened` is awaited once the client has its stream.
    """

    def __init__(
        self, subscription: OutletOwner, limit: int, gzip_min_bytes: int = 0, opened: Opened | None = None
    ) -> None:
        self.status_code = 200
        self.background = None
        self._subscription = subscription
        self._limit = limit
        self._gzip_min_bytes = gzip_min_bytes
        self._opened = opened
        self._packed = False
        self.raw_headers = list(_VARIED if gzip_min_bytes else _PLAIN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or only its head if the connection is adopted."""
        if self._gzip_min_bytes and scope["http_version"] != "1.0" and accepts_gzip(scope["headers"]):
            self._packed = True
            self.raw_headers.append(_GZIP)
        offer: ConnectionOffer | None = scope.get("extensions", {}).get(ADOPTION)
        if offer is None:
            _log_of_mounted(scope, _ASGI)
            await self._over_asgi(scope, receive, send)
        elif not await self._adopted(offer, scope, send):
            if offer.held:
                _log_of_mounted(scope, _HELD)
            await self._over_asgi(scope, receive, _without_head(send))
        else:
            _log_of_mounted(scope, _ADOPTED)
            if self._opened is not None:
                await self._opened()

    async def _adopted(self, offer: ConnectionOffer, scope: Scope, send: Send) -> bool:
        """Send the head, and hand the socket over to the subscription. Return whether that worked."""
        if scope["http_version"] == "1.0":
            offer.without_chunks()
        try:
            name = self._subscription.connection.encode()
            headers = [*self.raw_headers, (CONNECTION_HEADER, name), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            connection = await offer.adopt(self._limit)
            if connection is None:
                return False
            outlet = self._outlet(connection, scope)
            outlet.keep(slot_in(scope))
            self._subscription.attach(outlet)
        except BaseException:
            self._subscription.close("rejected")
            raise
        return True

    def _outlet(self, connection: Connection, scope: Scope) -> ChunkedOutlet | GzipOutlet:
        if self._packed:
            return GzipOutlet(self._subscription, connection, self._gzip_min_bytes)
        outlet = Http10Outlet if scope["http_version"] == "1.0" else ChunkedOutlet
        return outlet(self._subscription, connection)

    async def _over_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscription, limit, client = self._subscription, self._limit, address_of(scope)
        outlet = AsgiOutlet(subscription, limit, client)
        if self._packed:
            outlet = GzipAsgiOutlet(subscription, limit, client, self._gzip_min_bytes)
        headers = [*self.raw_headers, (CONNECTION_HEADER, subscription.connection.encode())]
        if self._opened is not None:
            send = _telling_of_the_first(send, self._opened)
        await AsgiStream(subscription, outlet, headers)(scope, receive, send)


def _log_of_mounted(scope: Scope, how: str) -> None:
    if OUTER in scope:  # our own server always offers its sockets
        _log_once(how)


@cache
def _log_once(how: str) -> None:
    log.info("%s", how)


def _telling_of_the_first(send: Send, opened: Opened) -> Send:
    """Return a `send` that awaits `opened` after it has sent the first part of the body."""
    reported = False

    async def send_and_report(message: Message) -> None:
        nonlocal reported
        await send(message)
        if not reported and message.get("body"):
            reported = True
            await opened()

    return send_and_report


def _without_head(send: Send) -> Send:
    async def send_body(message: Message) -> None:
        if message["type"] != "http.response.start":
            await send(message)

    return send_body


def stream_response(request: Request, stream: Stream, wait_s: float) -> Response:
    """Return the response of a stream.

    If the operation does not exist yet, the stream waits `wait_s` for it. The authorized connection ends with the
    stream.
    """
    context = context_of(request)
    settings, authorized = context.settings, connection_in(request.scope)
    authorized.bind_stream(stream, context.hub.streams)
    if wait_s > 0:
        asyncio.get_running_loop().call_later(min(wait_s, settings.max_long_poll_s), stream.stop_awaiting)
    claim = None if request.method == "HEAD" else authorized.claim and authorized.opened
    return StreamResponse(stream, settings.client_buffer_bytes, settings.gzip_min_bytes, claim)


def stream_rejected(request: Request, error: BrokerError) -> Response:
    """Count a rejected stream. Return the response for a temporary error; raise any other error."""
    context = context_of(request)
    context.hub.tally.rejected[error.code] += 1
    if error.code not in RETRYABLE:
        try:
            raise error
        finally:
            # Its traceback has this frame: together they would keep the connection until garbage is collected.
            del error
    return rejection(error, request.headers.get("accept"), context.settings.retry_ms / 1000)
