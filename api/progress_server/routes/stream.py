"""`GET /v1/operations/{id}/stream`: an operation's events as server-sent events (WHATWG HTML, 9.2)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from progress_broker.errors import BrokerError, Ended, NotFound
from progress_broker.model.grants import Action
from progress_broker.stream.frames import reconnect_frame
from progress_server.auth.authorization import permit
from progress_server.auth.guard import held
from progress_server.auth.principal import principal_of
from progress_server.callback.connection import visit_in
from progress_server.context import Id, context_of
from progress_server.http.openapi import Responses, refused
from progress_server.sse.asgi import HEADERS
from progress_server.sse.query import described, read_query
from progress_server.sse.response import not_opened, opened

router = APIRouter(prefix="/v1/operations/{id}/stream", tags=["events"])

_TEXT = {"type": "string"}
EVENT = {
    "type": "object",
    "properties": {"id": _TEXT, "event": _TEXT, "data": _TEXT, "retry": {"type": "integer", "minimum": 0}},
}
_RESPONSES: Responses = {
    200: {"description": "the events", "content": {"text/event-stream": {"itemSchema": EVENT}}},
    204: {"description": "the position is that of the end: nothing will follow, and EventSource stops"},
    **refused("too-many-streams", "rate-limited", "at-capacity", "draining", "storage-unavailable"),
}


# What it takes is read by hand: FastAPI's way costs as much again as all the rest, when all clients come back at once.
@router.head("", include_in_schema=False)
@router.get("", response_class=Response, responses=_RESPONSES, openapi_extra={"parameters": described()})
async def stream(operation: Id, request: Request) -> Response:
    """Follow an operation: a snapshot or, after a position, what came since; then each event as it happens."""
    context, visit = context_of(request), visit_in(request.scope)
    try:
        await permit(request, context, Action.READ, operation)
        query = read_query(request.scope["query_string"], others=context.takes_other_names)
        start = query.start(request.headers.get("last-event-id"))
        delivery = held(visit.delivery(query.delivery()), principal_of(request), context.hub)
        subscription = await context.hub.subscribe(operation, start, delivery, await_creation=query.wait_s > 0)
    except Ended:
        return Response(status_code=204)
    except BrokerError as error:
        others = context.takes_other_names
        if isinstance(error, NotFound) and read_query(request.scope["query_string"], others=others).wait_s > 0:
            # Whose it will be decides whether they may read it, so until it is there they wait by coming back.
            return Response(reconnect_frame(NotFound.code, context.settings.retry_ms).wire, 200, HEADERS)
        return not_opened(request, error)
    return opened(request, subscription, query.wait_s)
