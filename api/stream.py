"""`GET /v1/operations/{id}/stream`: an operation's events as server-sent events (WHATWG HTML, 9.2)."""

import asyncio
import re
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from api.asgi_outlet import HEADERS
from api.context import Id, InContext
from api.problems import PASSING
from api.stream_response import StreamResponse
from broker import positions
from broker.errors import BrokerError, Invalid
from broker.events import PING, PING_EVENT, reconnect_frame
from broker.hub import Ended, Start
from broker.models import EVENT_TYPE
from broker.subscription import Delivery

router = APIRouter(prefix="/v1/operations/{id}/stream", tags=["events"])

MAX_TYPES = 32

_RESPONSES: dict[int | str, dict[str, object]] = {
    200: {"description": "the events", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "the position is that of the end: nothing will follow, and EventSource stops"},
}


def _start(header: str | None, query: str | None, beginning: str | None) -> Start:
    position = header if header is not None else query
    if position is not None:
        positions.parse(position)
        return Start(position)
    return Start(beginning=beginning is not None)


def _types(text: str | None) -> frozenset[bytes] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) > MAX_TYPES or not all(re.fullmatch(EVENT_TYPE, name) for name in names):
        raise Invalid(f"types are up to {MAX_TYPES} event names, separated by commas", field="types")
    return frozenset(name.encode() for name in names)


@router.head("", include_in_schema=False)
@router.get("", response_class=Response, responses=_RESPONSES)
async def stream(
    operation: Id,
    request: Request,
    context: InContext,
    last_event_id: Annotated[str | None, Header(description="what EventSource sends when it reconnects")] = None,
    resume: Annotated[str | None, Query(alias="last_event_id", description="the same, for a new EventSource")] = None,
    beginning: Annotated[Literal["start"] | None, Query(alias="from", description="replay all that is kept")] = None,
    types: Annotated[str | None, Query(description="the types wanted, separated by commas")] = None,
    interval_ms: Annotated[int, Query(ge=0, le=60_000, description="least time between two `progress` events")] = 0,
    wait_s: Annotated[float, Query(ge=0, description="how long to await an operation that does not exist yet")] = 0,
    ping: Annotated[Literal["comment", "event"], Query(description="how to say that the stream is alive")] = "comment",
) -> Response:
    """Follow an operation: a snapshot or, after a position, what came since; then each event as it happens."""
    start = _start(last_event_id, resume, beginning)
    delivery = Delivery(_types(types), interval_ms / 1000, PING_EVENT if ping == "event" else PING)
    try:
        subscription = await context.hub.subscribe(operation, start, delivery, await_creation=wait_s > 0)
    except Ended:
        return Response(status_code=204)
    except BrokerError as error:
        if error.code in PASSING and request.headers.get("accept", "").strip() == "text/event-stream":
            return _come_back(error.code, context.settings.retry_ms)
        raise
    if wait_s > 0:
        asyncio.get_running_loop().call_later(min(wait_s, context.settings.max_wait_s), subscription.give_up)
    return StreamResponse(subscription, context.settings.client_buffer_bytes)


def _come_back(reason: str, retry_ms: int) -> Response:
    """Return a passing refusal that EventSource survives: it gives up for good on anything but 200."""
    return Response(reconnect_frame(reason, retry_ms).wire, 200, HEADERS)
