"""`GET /v1/stream`: the events of many operations as server-sent events on one connection."""

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response

from progress_broker.bundle.bundle import Admit, anything
from progress_broker.bundle.query import Query
from progress_broker.errors import BrokerError, Ended
from progress_broker.model.grants import Action, Facts
from progress_broker.model.index_terms import Facts as Found
from progress_server.auth.guard import held
from progress_server.auth.principal import principal_of
from progress_server.callback.connection import visit_in
from progress_server.context import context_of
from progress_server.http.openapi import Responses, refused
from progress_server.routes.stream import EVENT
from progress_server.sse.query import MultiQuery, described, read_multi_query
from progress_server.sse.response import not_opened, opened

router = APIRouter(prefix="/v1/stream", tags=["events"])

MOST_PLACES = 64
"""Places that are looked in one by one; for those whose grants name more, all that a query finds is looked at."""

_RESPONSES: Responses = {
    200: {"description": "the events", "content": {"text/event-stream": {"itemSchema": EVENT}}},
    204: {"description": "those named have ended, and the cursor saw it, or were deleted: nothing will follow"},
    **refused(
        "not-found", "gone", "too-many-streams", "rate-limited", "at-capacity", "draining", "storage-unavailable"
    ),
}


def admit_of(request: Request) -> Admit:
    """Return what decides which operations who asks may follow, whether they are named or found."""
    grants = principal_of(request).grants
    if grants.allows_everywhere(Action.READ):
        return anything
    return lambda facts: grants.allows(Action.READ, _as_grants_see(facts))


def within(query: Query, request: Request) -> Query:
    """Return a query that looks where who asks may read: what they may not must not push out what they may."""
    grants = principal_of(request).grants
    sources = None if grants.allows_everywhere(Action.READ) else grants.sources(Action.READ)
    if sources is None or len(sources) > MOST_PLACES:
        return query
    return replace(query, within=frozenset(f"{field}:{value}".encode() for field, value in sources))


def _as_grants_see(found: Found) -> Facts:
    owner, kind = (next(iter(found.labels(field)), None) for field in ("owner", "kind"))
    return Facts(found.operation, owner, kind, found.labels("tag"))


@router.head("", include_in_schema=False)
@router.get("", response_class=Response, responses=_RESPONSES, openapi_extra={"parameters": described(MultiQuery)})
async def multi_stream(request: Request) -> Response:
    """Follow many operations: their snapshots or, after a cursor, what came since; then each event as it happens."""
    context = context_of(request)
    settings, visit = context.settings, visit_in(request.scope)
    try:
        asked = read_multi_query(request.scope["query_string"], others=context.takes_other_names)
        bundle = await context.hub.bundles.open(
            within(asked.query(settings.max_operations_per_stream), request),
            asked.start(request.headers.get("last-event-id")),
            held(visit.delivery(asked.delivery()), principal_of(request), context.hub),
            admit=admit_of(request),
            wait=asked.wait_s > 0,
        )
    except Ended:
        return Response(status_code=204)
    except BrokerError as error:
        return not_opened(request, error)
    return opened(request, bundle, asked.wait_s)
