"""Limits per caller: open streams, requests, and bytes sent. Authentication runs before, so the caller is known."""

import asyncio
import random
from functools import partial

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from progress_broker.errors import AtCapacity, RateLimited, TooManyStreams
from progress_broker.limits.gcra import LONGEST_S
from progress_broker.limits.limiter import Limiter
from progress_broker.runtime.tally import Tally
from progress_server.http.bodies import NDJSON
from progress_server.http.paths import class_of
from progress_server.http.rejections import reject
from progress_server.limits.body_rate import BodyRateLimiter
from progress_server.limits.headers import RateLimitHeaders, stream_headers
from progress_server.limits.slots import HeldSlot, address_of, slot_in

_BODIES = frozenset({"POST", "PUT", "PATCH"})


class LimitsMiddleware:
    """Middleware that enforces the limits. A limit that is not set costs almost nothing."""

    def __init__(self, app: ASGIApp, limiter: Limiter, tally: Tally) -> None:
        self._app, self._limiter, self._tally = app, limiter, tally
        self._headers = RateLimitHeaders(limiter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it if the caller has exceeded a limit."""
        if not class_of(scope).limited:
            await self._app(scope, receive, send)
        elif self._limiter.requests is not None or self._limiter.sent is not None:
            await self._limit_rate(scope, receive, send)
        else:
            await self._take_slot(scope, receive, send)

    # Rates

    async def _limit_rate(self, scope: Scope, receive: Receive, send: Send) -> None:
        limiter, name = self._limiter, _name(scope)
        caller = f"={name}" if name else f"@{address_of(scope)}"
        has_body = limiter.sent is not None and scope["type"] == "http" and scope["method"] in _BODIES
        fault = self._check(caller, has_body=has_body)
        if fault is not None:
            if class_of(scope).streams:
                self._tally.rejected[fault.code] += 1
            await reject(fault, scope, receive, send, headers=self._headers.headers(caller, limiter.clock()))
            return
        if has_body:
            receive = self._charge(caller, scope, receive)
        if scope["type"] == "http":
            send = partial(self._send, caller, send)
        elif limiter.requests is not None:
            receive = partial(self._receive, caller, receive)
        await self._take_slot(scope, receive, send)

    def _check(self, caller: str, *, has_body: bool) -> RateLimited | None:
        limiter, now = self._limiter, self._limiter.clock()
        if has_body and limiter.sent is not None and (wait_s := limiter.sent.wait_s(caller, 1, now)):
            self._tally.limited["sent-bytes"] += 1
            return _limited(
                "you exceeded your limit of bytes sent per second (see RateLimit-Policy); wait, or send less at a time",
                wait_s,
            )
        if limiter.requests is not None and (wait_s := limiter.requests.take(caller, 1, now)):
            self._tally.limited["requests"] += 1
            return _limited(
                "you exceeded your limit of requests per second (see RateLimit-Policy); wait, and send fewer requests",
                wait_s,
            )
        return None

    def _charge(self, caller: str, scope: Scope, receive: Receive) -> Receive:
        """Charge a body to the caller's budget of bytes.

        A body with Content-Length is charged in full now. Otherwise many bodies that begin together would each find
        the whole budget unspent.
        """
        sent, clock, size = self._limiter.sent, self._limiter.clock, Headers(scope=scope).get("content-length", "")
        if sent is None:
            return receive
        if size.isdecimal() and not _is_lines(scope):
            if (rate := sent.rate_of(caller)) is not None:
                # At most the burst: a longer body is rejected for its size.
                sent.charge(caller, min(float(size), rate.burst), clock())
            return receive
        return BodyRateLimiter(receive, sent, caller, clock, self._tally, lines=_is_lines(scope))

    async def _receive(self, caller: str, receive: Receive) -> Message:
        """Return the client's next message, and count it as a request. Messages beyond the rate are delayed."""
        message = await receive()
        requests = self._limiter.requests
        if message["type"] == "websocket.receive" and requests is not None:
            now = self._limiter.clock()
            wait_s = requests.wait_s(caller, 1, now)
            requests.charge(caller, 1, now)
            if wait_s:
                await asyncio.sleep(min(wait_s, LONGEST_S))
        return message

    async def _send(self, caller: str, send: Send, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *self._headers.headers(caller, self._limiter.clock())]
            message = {**message, "headers": headers}
        await send(message)

    # Stream slots

    async def _take_slot(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. A stream or a long poll first takes a slot, and holds it until it ends."""
        request = class_of(scope)
        if not (request.streams or request.is_long_poll):
            await self._app(scope, receive, send)
            return
        name = _name(scope)
        try:
            slot = await self._limiter.stream_slot(name, address_of(scope), slot_in(scope))
        except (AtCapacity, TooManyStreams) as fault:
            self._tally.rejected[fault.code] += 1
            most = self._limiter.most_streams(name)
            headers = stream_headers(most) if isinstance(fault, TooManyStreams) and name and most else []
            await reject(fault, scope, receive, send, headers=headers)
            return
        with HeldSlot(scope, slot):
            await self._app(scope, receive, send)


def _name(scope: Scope) -> str:
    name: str = getattr(scope.get("state", {}).get("principal"), "name", "")
    return name


def _is_lines(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() in NDJSON


def _limited(detail: str, wait_s: float) -> RateLimited:
    return RateLimited(detail, retry_s=wait_s + random.uniform(0, 1))
