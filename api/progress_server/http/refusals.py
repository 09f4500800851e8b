"""Passing refusals of streams: an EventSource gives up for good on anything but a 200, so it is told there."""

import math
import random

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from progress_broker.errors import BrokerError
from progress_broker.stream.frames import reconnect_frame
from progress_server.http import ws_refusals as ws_refusals
from progress_server.http.problems import Refusing, problem
from progress_server.sse.asgi import HEADERS

_JITTER = (1.0, 1.3)  # those refused at one moment don't come back at one moment, and none before its turn


def refusal(code: str, detail: str, accept: str | None, retry_s: float) -> Response:
    """Return the refusal: a stream that says when to come back, and ends, to whom takes nothing but events."""
    retry_s *= random.uniform(*_JITTER)
    if accept is not None and accept.strip() == "text/event-stream":
        return Refusing(code, reconnect_frame(code, math.ceil(retry_s * 1000)).wire, 200, HEADERS)
    return problem(code, detail, retry_s=retry_s)


async def refuse(
    fault: BrokerError, scope: Scope, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Refuse a request for a while, before anything is made of it: a WebSocket is told in a message, as is a stream."""
    if scope["type"] == "websocket":
        retry_s = (fault.retry_s or 1) * random.uniform(*_JITTER)
        await ws_refusals.refuse(WebSocket(scope, receive, send), fault.code, fault.detail, retry_s=retry_s)
        return
    accept = Headers(scope=scope).get("accept")
    answer = refusal(fault.code, fault.detail, accept, fault.retry_s or 1)
    answer.raw_headers += headers or ()
    await answer(scope, receive, send)
