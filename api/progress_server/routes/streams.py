"""The events of one operation, and of many, as server-sent events (WHATWG HTML, 9.2)."""

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from progress_broker.bundle.bundle import Admit, anything
from progress_broker.bundle.query import OperationQuery
from progress_broker.errors import BrokerError, Ended, NotFound
from progress_broker.model.grants import Action, ResourceAttributes
from progress_broker.model.index_terms import IndexedOperation as Found
from progress_broker.stream.frames import reconnect_frame
from progress_server.auth.authorization import require_permission
from progress_server.auth.principal import principal_of
from progress_server.auth.revocation import bind_to_principal
from progress_server.callback.connection import connection_in
from progress_server.context import Id, context_of
from progress_server.http.headers import EVENT_STREAM
from progress_server.http.openapi import Responses, rejections
from progress_server.http.paths import STREAM_OF_MANY, STREAM_OF_ONE
from progress_server.http.routing import DirectRoute
from progress_server.sse.query import MultiQuery, query_parameters, read_multi_query, read_query
from progress_server.sse.response import stream_rejected, stream_response

router = APIRouter(tags=["events"])

MAX_INDEXES = 64
"""Maximum ids, owners, tags and kinds in a caller's grants for which the index is searched one by one.

For a caller with more, the query searches everything and then filters what it finds.
"""


def _events(schema: str) -> dict[str, Any]:
    """Return the content of a stream. Before OpenAPI 3.2 the schema of such a type is by custom that of one event."""
    item = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": "The events; the schema is that of one.", "content": {"text/event-stream": {"schema": item}}}


_OF_ONE: Responses = {
    200: _events("ServerSentEvent"),
    204: {"description": "The position is that of the end: nothing will follow, and EventSource stops."},
    **rejections("too-many-streams", "rate-limited", "at-capacity", "draining", "storage-unavailable"),
}
_OF_MANY: Responses = {
    200: _events("ServerSentEventOfMany"),
    204: {"description": "Every named operation was deleted, or ended before the cursor: nothing will follow."},
    **rejections(
        "not-found", "gone", "too-many-streams", "rate-limited", "at-capacity", "draining", "storage-unavailable"
    ),
}


# The query is parsed without FastAPI, whose parsing would double the cost of a request. It matters when all clients
# reconnect at once.
@router.head(STREAM_OF_ONE, include_in_schema=False)
@router.get(STREAM_OF_ONE, response_class=Response, responses=_OF_ONE, openapi_extra={"parameters": query_parameters()})
async def stream(operation: Id, request: Request) -> Response:
    """Follow an operation.

    The stream begins with a snapshot or, with a position, with the events after it. Then each event follows as it
    happens.
    """
    context, authorized = context_of(request), connection_in(request.scope)
    try:
        await require_permission(request, context, Action.READ, operation)
        query = read_query(request.scope["query_string"], others=context.takes_other_names)
        start = query.start(request.headers.get("last-event-id"))
        delivery = bind_to_principal(authorized.delivery(query.delivery()), principal_of(request), context.hub)
        subscription = await context.hub.subscribe(operation, start, delivery, await_creation=query.wait_s > 0)
    except Ended:
        return Response(status_code=204)
    except BrokerError as error:
        others = context.takes_other_names
        if isinstance(error, NotFound) and read_query(request.scope["query_string"], others=others).wait_s > 0:
            # Permission depends on the operation's owner, which is unknown until it is created. So the client has to
            # wait by reconnecting.
            return Response(reconnect_frame(NotFound.code, context.settings.retry_ms).wire, 200, EVENT_STREAM)
        return stream_rejected(request, error)
    return stream_response(request, subscription, query.wait_s)


DIRECT = DirectRoute(STREAM_OF_ONE, stream)


@router.head(STREAM_OF_MANY, include_in_schema=False)
@router.get(
    STREAM_OF_MANY,
    response_class=Response,
    responses=_OF_MANY,
    openapi_extra={"parameters": query_parameters(MultiQuery)},
)
async def multi_stream(request: Request) -> Response:
    """Follow many operations.

    The stream begins with their snapshots or, with a cursor, with the events after it. Then each event follows as it
    happens.
    """
    context = context_of(request)
    settings, authorized = context.settings, connection_in(request.scope)
    try:
        query = read_multi_query(request.scope["query_string"], others=context.takes_other_names)
        bundle = await context.hub.bundles.open(
            within(query.query(settings.max_operations_per_stream), request),
            query.start(request.headers.get("last-event-id")),
            bind_to_principal(authorized.delivery(query.delivery()), principal_of(request), context.hub),
            admit=admit_of(request),
            wait=query.wait_s > 0,
        )
    except Ended:
        return Response(status_code=204)
    except BrokerError as error:
        return stream_rejected(request, error)
    return stream_response(request, bundle, query.wait_s)


def admit_of(request: Request) -> Admit:
    """Return a check of which operations the caller may follow, whether named or found by a query."""
    grants = principal_of(request).grants
    if grants.allows_everywhere(Action.READ):
        return anything
    return lambda facts: grants.allows(Action.READ, _as_grants_see(facts))


def within(query: OperationQuery, request: Request) -> OperationQuery:
    """Return the query, limited to what the caller may read.

    Otherwise operations that the caller may not read could fill the limit of the stream.
    """
    grants = principal_of(request).grants
    sources = None if grants.allows_everywhere(Action.READ) else grants.sources(Action.READ)
    if sources is None or len(sources) > MAX_INDEXES:
        return query
    return replace(query, within=frozenset(f"{field}:{value}".encode() for field, value in sources))


def _as_grants_see(found: Found) -> ResourceAttributes:
    owner, kind = (next(iter(found.labels(field)), None) for field in ("owner", "kind"))
    return ResourceAttributes(found.operation, owner, kind, found.labels("tag"), found.labels("metadata"))
