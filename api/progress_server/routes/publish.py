"""The call that publishes events: one, a list, or NDJSON lines as they arrive. Each event is counted by its outcome."""

from collections.abc import AsyncIterator, Iterator, Sequence

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from progress_broker.errors import BrokerError, InvalidInput, Unauthenticated
from progress_broker.model.entry import NewEvent, PublishRequest, read_publish_request
from progress_broker.model.grants import Action
from progress_broker.model.operation import PublishResult
from progress_broker.model.validation import read_json
from progress_broker.runtime.ndjson import LineBuffer
from progress_server.auth.authorization import require_permission
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext, context_of
from progress_server.http.bodies import NDJSON, chunks, read_body
from progress_server.http.openapi import rejections
from progress_server.http.paths import EVENTS
from progress_server.http.problems import problem
from progress_server.http.query_names import CheckedRoute, values_of
from progress_server.http.routing import DirectRoute

router = APIRouter(tags=["events"], route_class=CheckedRoute)

MAX_BATCH = 1000
"""Maximum events in one list. A batch is one script call, and Redis runs nothing else during it."""
AT_ONCE, AT_ONCE_BYTES = 200, 256 * 1024
"""How many lines of NDJSON one script call stores at most, and about how many bytes."""

STORED = "stored"
"""The outcome of published events that were stored. All other outcomes are error codes."""

_SCHEMA = PublishRequest.model_json_schema()
_PUBLISH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": [_SCHEMA, {"type": "array", "items": _SCHEMA}]}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


@router.post(
    EVENTS,
    response_model=PublishResult,
    openapi_extra=_PUBLISH_BODY,
    responses=rejections("operation-ended", "fenced", "conflict"),
)
async def publish(operation: Id, request: Request, context: InContext) -> Response:
    """Publish one event, a list (all events or none are stored), or NDJSON lines, which are stored as they arrive.

    An empty list is a heartbeat: it only reports that the worker is alive.
    """
    await require_permission(request, context, Action.PUBLISH, operation)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in NDJSON:
        return await _publish_lines(operation, request, context)
    value = read_json(await read_body(request, context.settings.max_body_bytes))
    events = value if isinstance(value, list) else [value]
    if len(events) > MAX_BATCH:
        raise InvalidInput(
            f"the list has {len(events)} events, and the maximum is {MAX_BATCH}; send several lists, or NDJSON"
        )
    entries = [read_publish_request(event, context.settings) for event in events]
    answer = await publish_counted(context, operation, entries)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _publish_directly(operation: str, request: Request) -> Response:
    if query := request.scope["query_string"]:
        values_of(query, ())
    return await publish(operation, request, context_of(request))


DIRECT = DirectRoute(EVENTS, _publish_directly, ("POST",))


async def _publish_lines(operation: str, request: Request, context: Context) -> Response:
    answer: PublishResult | None = None
    taken, principal, revocation = 0, principal_of(request), guard_of(request).revocation
    try:
        async for lines in _lines(request, LineBuffer.of_events(context.settings)):
            if revocation.is_expired_or_revoked(principal):  # lines may arrive for days
                raise Unauthenticated("the credentials expired or were revoked during an NDJSON upload")
            entries = []
            for number, line in lines:
                try:
                    entries.append(read_publish_request(read_json(line), context.settings))
                except BrokerError as error:
                    # Store the lines before it in the same chunk: how lines are cut into chunks must not matter.
                    answer, taken = await _store(operation, entries, context, answer, taken)
                    return problem(error.code, f"line {number}: {error.detail}", field=error.field, accepted=taken)
            answer, taken = await _store(operation, entries, context, answer, taken)
    except Unauthenticated:
        raise
    except BrokerError as error:
        return problem(error.code, error.detail, field=error.field, accepted=taken)
    if answer is None:
        raise InvalidInput("the body contains no events; send one event per line")
    return Response(orjson.dumps(answer.model_dump() | {"accepted": taken}), media_type="application/json")


async def _store(
    operation: str, entries: list[NewEvent], context: Context, answer: PublishResult | None, taken: int
) -> tuple[PublishResult | None, int]:
    for batch in _batches(entries):
        answer = await publish_counted(context, operation, batch)
        taken += len(batch)
    return answer, taken


def _batches(entries: Sequence[NewEvent]) -> Iterator[Sequence[NewEvent]]:
    first, size = 0, 0
    for at, entry in enumerate(entries):
        if at - first == AT_ONCE or (at > first and size + len(entry.data) > AT_ONCE_BYTES):
            yield entries[first:at]
            first, size = at, 0
        size += len(entry.data)
    if entries:
        yield entries[first:]


async def _lines(request: Request, lines: LineBuffer) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Yield the body's lines and their numbers as they arrive: the lines of a chunk together, without blank lines."""
    async for chunk in chunks(request):
        if found := lines.feed(chunk):
            yield found
        lines.check()
    if found := lines.end():
        yield found


async def publish_counted(context: Context, operation: str, entries: Sequence[NewEvent]) -> PublishResult:
    """Publish events to an operation, and count them. Raises the errors of `Store.publish`."""
    outcome = "internal"
    try:
        answer = await context.store.publish(operation, entries)
        outcome = STORED
    except BrokerError as error:
        outcome = error.code
        raise
    finally:
        tally = context.hub.tally
        tally.published[outcome] += len(entries)
        tally.published_bytes[outcome] += sum([len(entry.data) for entry in entries])
    return answer
