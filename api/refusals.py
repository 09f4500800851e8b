"""Passing refusals of streams: an EventSource gives up for good on anything but a 200, so it is told there."""

import random

from starlette.responses import Response

from api.asgi_outlet import HEADERS
from api.problems import problem
from broker.events import reconnect_frame

_JITTER = (0.9, 1.3)  # those refused at one moment don't come back at one moment


def refusal(code: str, detail: str, accept: str | None, retry_s: float) -> Response:
    """Return the refusal: a stream that says when to come back, and ends, to whom takes nothing but events."""
    retry_s *= random.uniform(*_JITTER)
    if accept is not None and accept.strip() == "text/event-stream":
        return Response(reconnect_frame(code, round(retry_s * 1000)).wire, 200, HEADERS)
    return problem(code, detail, retry_s=retry_s)
