"""Rejections of requests, streams and WebSockets, each in the form that its kind of client understands.

An EventSource stops for good at any status but 200. So for temporary errors it gets a 200 that asks it to reconnect.
Browsers hide the status of a rejected WebSocket handshake. So the WebSocket is accepted, sent the reason, and closed.
"""

import math
import random
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from progress_broker.errors import (
    RETRYABLE,
    AuthorizerUnavailable,
    BrokerError,
    Forbidden,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthenticated,
)
from progress_broker.stream.frames import reconnect_frame
from progress_server.http.headers import EVENT_STREAM
from progress_server.http.problems import (
    CREDENTIALS_HINT,
    STATUS_OF_CODE,
    ProblemResponse,
    problem,
    problem_body,
    problem_of,
)

ENDED = 1000
"""Close code: nothing will follow; the client must not reconnect."""

REPLACED = 4009
"""Close code: a newer connection has replaced this one; the client must not reconnect."""

POLICY_VIOLATION = 1008
"""Close code: the client has sent too many invalid messages."""

COME_BACK_S = 2.0
"""Retry delay while Redis or the authorization back end is unavailable."""

_BROKEN, _RESTART, _LATER = 1011, 1012, 1013
_OURS = 4000  # 4000 to 4999 are free for applications

_NEAREST: dict[int, type[BrokerError]] = {
    401: Unauthenticated,
    404: NotFound,
    422: InvalidInput,
    429: RateLimited,
    503: AuthorizerUnavailable,
}

_WITHOUT_BODY = frozenset({204, 205, 304})  # servers reject a body, RFC 9110 15.3.5, 15.3.6, 15.4.5

_JITTER = (1.0, 1.3)  # spread retries of clients that are rejected together; never below 1, so that none is early


_EVENT_HEADERS = tuple((name.lower().encode(), value.encode()) for name, value in EVENT_STREAM.items())


class EventRejection(ProblemResponse):
    """A stream that only asks its client to reconnect.

    Its headers are encoded once: when all clients reconnect at once, most are rejected first (`bench/storm.py`).
    """

    def __init__(self, code: str, content: bytes) -> None:
        self._code = code
        self.status_code, self.body, self.background = 200, content, None
        self.raw_headers = [*_EVENT_HEADERS, (b"content-length", b"%d" % len(content))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        scope.setdefault("state", {})["rejected"] = self._code
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


async def reject(
    fault: BrokerError,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    retry_s: float = 1,
) -> None:
    """Reject an HTTP or WebSocket request before it is handled.

    `retry_s` is the retry delay, unless the fault has its own.
    """
    if scope["type"] == "websocket":
        await reject_websocket(WebSocket(scope, receive, send), fault, retry_s=retry_s)
        return
    answer = rejection(fault, _accept(scope), retry_s)
    answer.raw_headers += headers or ()
    await answer(scope, receive, send)


async def reject_with_status(
    status: int, detail: str, headers: Mapping[str, str], scope: Scope, receive: Receive, send: Send
) -> None:
    """Reject a request with any status, which an app chose, as a problem with the code that is nearest to it."""
    kind = _NEAREST.get(status, Forbidden if status < 500 else AuthorizerUnavailable)
    exact = STATUS_OF_CODE[kind.code] == status
    if scope["type"] == "websocket" or (exact and kind.code in RETRYABLE):
        wait_s = next((it for name, it in headers.items() if name.lower() == "retry-after" and it.isdecimal()), None)
        fault = kind(detail, retry_s=float(wait_s) if wait_s else None)
        await reject(fault, scope, receive, send, retry_s=COME_BACK_S)
        return
    body = problem_body(kind.code, detail, None) | {"status": status}
    if not exact:
        phrases = {it.value: it.phrase for it in HTTPStatus}
        body |= {"type": "about:blank", "title": phrases.get(status, "Rejected")}
    content = b"" if status in _WITHOUT_BODY else orjson.dumps(body)
    answer = ProblemResponse(kind.code, content, status, dict(headers), "application/problem+json")
    await answer(scope, receive, send)


def _accept(scope: Scope) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), None)


def rejection(fault: BrokerError, accept: str | None, retry_s: float) -> Response:
    """Return the error response.

    A client that accepts only `text/event-stream` gets a temporary error as a stream, which asks it to reconnect and
    ends.
    """
    if fault.code not in RETRYABLE:
        return problem_of(fault)
    wait_s = (fault.retry_s or retry_s) * random.uniform(*_JITTER)
    if accept is not None and accept.strip() == "text/event-stream":
        return EventRejection(fault.code, reconnect_frame(fault.code, math.ceil(wait_s * 1000)).wire)
    return problem(fault.code, fault.detail, retry_s=wait_s)


async def reject_websocket(websocket: WebSocket, fault: BrokerError, *, retry_s: float = 1) -> None:
    """Reject a WebSocket that has not been accepted yet."""
    detail = CREDENTIALS_HINT if isinstance(fault, Unauthenticated) else fault.detail
    websocket.scope.setdefault("state", {})["rejected"] = fault.code
    wait_s = (fault.retry_s or retry_s) * random.uniform(*_JITTER)
    with suppress(WebSocketDisconnect, OSError):  # OSError if the client left before the accept (ASGI, "send")
        await websocket.accept()
        await websocket.send_text(problem_message(fault.code, detail, field=fault.field, retry_s=wait_s))
        await websocket.close(close_code(fault.code), fault.code)


def problem_message(
    code: str, detail: str, *, field: str | None = None, retry_s: float | None = None, **members: object
) -> str:
    """Return an error as a WebSocket message, with the members of a problem; temporary errors also have `retry_ms`."""
    retry = {"retry_ms": math.ceil((retry_s or random.uniform(1, 5)) * 1000)} if code in RETRYABLE else {}
    fields = problem_body(code, detail, field) | members | retry
    return orjson.dumps({"event": "problem"} | {name: it for name, it in fields.items() if it is not None}).decode()


def close_code(reason: str) -> int:
    """Return the WebSocket close code (RFC 6455, 7.4) for an error code or for another reason to reconnect later."""
    if reason == "draining":
        return _RESTART
    status = STATUS_OF_CODE.get(reason)
    if status is None or reason in RETRYABLE:
        return _LATER
    return _OURS + status - 400 if status < 500 else _BROKEN  # 4001 unauthenticated, 4004 not found, 4010 gone
