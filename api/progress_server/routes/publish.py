"""The call that publishes events: one, a list, or lines as they come. All are counted, by what came of them."""

from collections.abc import AsyncIterator, Sequence

import orjson
from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from progress_broker.errors import BrokerError, Invalid, Unauthenticated
from progress_broker.model.entry import Entry, Publication, read_publication
from progress_broker.model.grants import Action
from progress_broker.model.operation import Answer
from progress_broker.model.validation import read_json
from progress_broker.runtime.ndjson import LineBuffer
from progress_server.auth.authorization import permit
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext
from progress_server.http.bodies import NDJSON, chunks, read_body
from progress_server.http.openapi import refused
from progress_server.http.paths import EVENTS
from progress_server.http.problems import problem
from progress_server.http.query_names import CheckedRoute

router = APIRouter(tags=["events"], route_class=CheckedRoute)

MAX_BATCH = 1000
"""Events in one list: a batch is one script call, which nothing else in Redis can interrupt."""

STORED = "stored"
"""The outcome that published events are counted under; any other is the code of what went wrong."""

_SCHEMA = Publication.model_json_schema()
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
    response_model=Answer,
    openapi_extra=_PUBLISH_BODY,
    responses=refused("operation-ended", "fenced", "conflict"),
)
async def publish(operation: Id, request: Request, context: InContext) -> Response:
    """Publish one event, a list (all or none), or NDJSON, which is stored line by line as it arrives.

    An empty list tells nothing but that the worker is alive.
    """
    await permit(request, context, Action.PUBLISH, operation)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in NDJSON:
        return await _publish_lines(operation, request, context)
    value = read_json(await read_body(request, context.settings.max_body_bytes))
    events = value if isinstance(value, list) else [value]
    if len(events) > MAX_BATCH:
        raise Invalid(f"a list holds {MAX_BATCH} events at most, this one {len(events)}: send NDJSON for more")
    entries = [read_publication(event, context.settings) for event in events]
    answer = await take(context, operation, entries)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _publish_lines(operation: str, request: Request, context: Context) -> Response:
    answer: Answer | None = None
    taken, principal, revocation = 0, principal_of(request), guard_of(request).revocation
    try:
        async for lines in _lines(request, LineBuffer.of_events(context.settings)):
            if revocation.ended(principal):  # lines may come for days
                raise Unauthenticated("its proof ended while it told its lines")
            entries = []
            for number, line in lines:
                try:
                    entries.append(read_publication(read_json(line), context.settings))
                except BrokerError as error:
                    # What came before it in the same chunk counts, as it would have in a chunk of its own.
                    answer, taken = await _store(operation, entries, context, answer, taken)
                    return problem(error.code, f"line {number}: {error.detail}", field=error.field, accepted=taken)
            answer, taken = await _store(operation, entries, context, answer, taken)
    except Unauthenticated:
        raise
    except BrokerError as error:
        return problem(error.code, error.detail, field=error.field, accepted=taken)
    except ClientDisconnect:
        pass  # what was told is stored; nobody is there to hear so
    if answer is None:
        raise Invalid("there was no event in the body")
    return Response(orjson.dumps(answer.model_dump() | {"accepted": taken}), media_type="application/json")


async def _store(
    operation: str, entries: list[Entry], context: Context, answer: Answer | None, taken: int
) -> tuple[Answer | None, int]:
    for at in range(0, len(entries), MAX_BATCH):
        batch = entries[at : at + MAX_BATCH]
        answer = await take(context, operation, batch)
        taken += len(batch)
    return answer, taken


async def _lines(request: Request, lines: LineBuffer) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Yield the body's lines with their numbers as they arrive, those of one chunk together, without blank ones."""
    async for chunk in chunks(request):
        if found := lines.feed(chunk):
            yield found
        lines.check()
    if found := lines.end():
        yield found


async def take(context: Context, operation: str, entries: Sequence[Entry]) -> Answer:
    """Publish events to an operation. Raises what `Store.publish` does."""
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
