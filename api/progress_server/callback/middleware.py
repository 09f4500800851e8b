"""Middleware around the request to a back end: the limits before it, and the end of what it allowed after it.

Without a back end, invalid credentials are rejected at once and take no slot. Here the back end has to be asked first,
so each question needs a slot. The slot counts for the address until the principal is known
(`api/progress_server/limits/middleware.py`).
"""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.access.takeover import NAME
from progress_broker.errors import AtCapacity, RateLimited, TooManyStreams
from progress_broker.limits.limiter import Limiter
from progress_broker.runtime.tally import Tally
from progress_server.callback.connection import connection_in
from progress_server.callback.disconnect_watcher import DisconnectWatcher
from progress_server.http.paths import class_of
from progress_server.http.query_names import position_in
from progress_server.http.rejections import reject
from progress_server.limits.admission import PerAddressRate
from progress_server.limits.slots import HeldSlot, address_of


class AuthorizedConnectionMiddleware:
    """Middleware that ends an allowed connection with its request, unless a stream, which outlives it, does that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a client whose connection was replaced with a 204, after which an EventSource does not reconnect; pass
        other requests on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if DisconnectWatcher.watchable(scope):
            watcher = DisconnectWatcher(receive)
            watcher.enter(scope)
            receive = watcher.receive
        if not class_of(scope).streams:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "http" and _was_replaced(scope):
            await Response(status_code=204)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            authorized = connection_in(scope)
            if not authorized.transferred:
                authorized.end("client" if scope["type"] == "websocket" else "rejected")


def _was_replaced(scope: Scope) -> bool:
    query, name = scope["query_string"], NAME.decode()
    position = Headers(scope=scope).get("last-event-id")
    if not position and NAME in query:  # a polyfill can't set the header
        position = position_in(query)
    return position == name


class PreAuthLimits:
    """Middleware that limits requests per address. It runs before the replica's limit of new streams, which one address
    alone could use up."""

    def __init__(self, app: ASGIApp, address_rate: PerAddressRate, limiter: Limiter, tally: Tally) -> None:
        self._app, self._address_rate, self._limiter, self._tally = app, address_rate, limiter, tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it. A stream or a long poll first takes a slot of its address."""
        request = class_of(scope)
        if not (request.streams or request.is_long_poll):
            await self._app(scope, receive, send)
            return
        address = address_of(scope)
        try:
            if request.streams:  # other calls are counted when they cost a question
                self._address_rate.check(address)
            slot = self._limiter.address_slot(address)
        except (AtCapacity, RateLimited, TooManyStreams) as fault:
            self._tally.rejected[fault.code] += 1
            await reject(fault, scope, receive, send)
            return
        with HeldSlot(scope, slot):
            await self._app(scope, receive, send)
