"""Refusals: how a caller is told no, whatever it came with.

An EventSource gives up for good on anything but a 200, so it is told there to come back where time mends what is wrong.
Browsers hide the status of a WebSocket's handshake that was refused, so a WebSocket is opened, told why, and closed.
"""

import math
import random
from contextlib import suppress

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from progress_broker.errors import BrokerError, Unauthenticated
from progress_broker.stream.frames import reconnect_frame
from progress_server.http.headers import EVENT_STREAM
from progress_server.http.problems import PASSING, PROVE, STATUS_OF_CODE, Refusing, described, problem, problem_of

ENDED = 1000
"""Nothing will follow: don't come back."""

REPLACED = 4009
"""A newer connection has taken its place: don't come back."""

ABUSE = 1008
"""The client says what it must not, again and again."""

COME_BACK_S = 2.0
"""When to come back where storage, or a back end, can't say just now what may be done."""

_BROKEN, _RESTART, _LATER = 1011, 1012, 1013
_OURS = 4000  # and on: free for applications

_JITTER = (1.0, 1.3)  # those refused at one moment don't come back at one moment, and none before its turn


async def reject(
    fault: BrokerError,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    retry_s: float = 1,
) -> None:
    """Refuse a request before anything is made of it. `retry_s` is when to come back, unless the fault says it."""
    if scope["type"] == "websocket":
        await reject_websocket(WebSocket(scope, receive, send), fault, retry_s=retry_s)
        return
    answer = refusal(fault, Headers(scope=scope).get("accept"), retry_s)
    answer.raw_headers += headers or ()
    await answer(scope, receive, send)


def refusal(fault: BrokerError, accept: str | None, retry_s: float) -> Response:
    """Return the refusal: a stream that says when to come back, and ends, to whom takes nothing but events."""
    if fault.code not in PASSING:
        return problem_of(fault)
    wait_s = (fault.retry_s or retry_s) * random.uniform(*_JITTER)
    if accept is not None and accept.strip() == "text/event-stream":
        return Refusing(fault.code, reconnect_frame(fault.code, math.ceil(wait_s * 1000)).wire, 200, EVENT_STREAM)
    return problem(fault.code, fault.detail, retry_s=wait_s)


async def reject_websocket(websocket: WebSocket, fault: BrokerError, *, retry_s: float = 1) -> None:
    """Refuse a WebSocket that has not been accepted yet."""
    detail = PROVE if isinstance(fault, Unauthenticated) else fault.detail
    wait_s = (fault.retry_s or retry_s) * random.uniform(*_JITTER)
    with suppress(WebSocketDisconnect, OSError):  # the latter where it left before it was accepted (ASGI, "send")
        await websocket.accept()
        await websocket.send_text(problem_message(fault.code, detail, field=fault.field, retry_s=wait_s))
        await websocket.close(close_code(fault.code), fault.code)


def problem_message(
    code: str, detail: str, *, field: str | None = None, retry_s: float | None = None, **members: object
) -> str:
    """Return what went wrong, as the body of a refused request has it; and when to come back, where time mends it."""
    retry = {"retry_ms": math.ceil((retry_s or random.uniform(1, 5)) * 1000)} if code in PASSING else {}
    told = described(code, detail, field) | members | retry
    return orjson.dumps({"event": "problem"} | {name: it for name, it in told.items() if it is not None}).decode()


def close_code(reason: str) -> int:
    """Return a WebSocket's close code (RFC 6455, 7.4) for a problem, or for a reason to come back later."""
    if reason == "draining":
        return _RESTART
    status = STATUS_OF_CODE.get(reason)
    if status is None or reason in PASSING:
        return _LATER
    return _OURS + status - 400 if status < 500 else _BROKEN  # 4001 unauthenticated, 4004 not found, 4010 gone
