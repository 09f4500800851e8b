"""The calls that concern events: publish, and read as JSON, with a long poll for where streams can't go."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from progress_broker.errors import BrokerError, Ended, Invalid, Unauthenticated
from progress_broker.model.entry import Entry, Publication, read_publication
from progress_broker.model.event import END
from progress_broker.model.grants import Action
from progress_broker.model.operation import Answer
from progress_broker.model.position import START
from progress_broker.model.position import parse as parse_position
from progress_broker.model.validation import read_json
from progress_broker.operations import event_log
from progress_broker.operations.event_log import Page
from progress_broker.runtime.ndjson import LineBuffer
from progress_broker.stream.batching import wanted
from progress_broker.stream.delivery import ALL, Delivery, Start
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.stream.outlet import UNENCODED
from progress_broker.stream.subscription import Subscription
from progress_server.auth.authorization import permit
from progress_server.auth.guard import held
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext, context_of, read_body
from progress_server.http.bodies import NDJSON, chunks
from progress_server.http.openapi import refused
from progress_server.http.problems import problem
from progress_server.http.query_names import CheckedRoute
from progress_server.routes.intake import take
from progress_server.sse.query import POSITION, TYPES, read_types

router = APIRouter(prefix="/v1/operations/{id}/events", tags=["events"], route_class=CheckedRoute)

MAX_BATCH = 1000
"""Events in one list: a batch is one script call, which nothing else in Redis can interrupt."""

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
    "",
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
    taken, principal = 0, principal_of(request)
    try:
        async for lines in _lines(request, LineBuffer.of_events(context.settings)):
            if context.guard.ended(principal):  # lines may come for days
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


class Alarm:
    """An outlet for a long poll: it goes off when there is something to read, and takes nothing."""

    kind = "poll"
    encoding = UNENCODED

    def __init__(self, subscription: Subscription) -> None:
        self.rung = asyncio.Event()
        self._subscription = subscription

    def write(self, frames: Sequence[Frame]) -> None:
        """Go off at the first event; there is no room for it, for the log will be read."""
        if any(frame.n for frame in frames):
            self._subscription.filled()
            self.rung.set()

    def close(self) -> None:
        """Go off: nothing will come any more."""
        self.rung.set()

    abort = close


@router.get("")
async def history(
    operation: Id,
    request: Request,
    context: InContext,
    after: Annotated[
        str | None,
        Query(description="the position to go on from; without it, all that is kept", json_schema_extra=POSITION),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    wait: Annotated[float, Query(ge=0, description="seconds to wait for an event when there is none")] = 0,
    types: Annotated[
        str | None,
        Query(
            description="the types wanted, separated by commas; `end` always comes",
            json_schema_extra={"pattern": TYPES},
        ),
    ] = None,
) -> Response:
    """Read an operation's events as JSON. Go on from the answer's `position`, until `done`.

    When the events after a position are no longer kept, or it is unknown, `reset` says so and `snapshot` holds the
    operation, whose position is the one to go on from.
    """
    await permit(request, context, Action.READ, operation)
    if after is not None:
        parse_position(after)
    asked = read_types(types)
    principal = principal_of(request)
    delivery = held(ALL, principal, context.hub)
    until = time.monotonic() + min(wait, context.settings.max_wait_s)
    while True:
        page = await _read(operation, context, after, limit)
        frames = wanted([make_frame(event) for event in page.events], asked)
        if frames or page.reset or _at_end(page):
            break
        if page.events:  # none that is wanted: look further
            after = page.events[-1].position.decode()
        elif (left_s := until - time.monotonic()) > 0:
            await _wait(request, operation, after or START, left_s, delivery)
            if context.guard.ended(principal):
                raise Unauthenticated("its proof ended while it waited")
        else:
            break
    # Where there is no event to show for it, the snapshot tells whether there is such an operation at all.
    snapshot = None if page.events else await context.store.get(operation)
    reset = snapshot if page.reset else None
    position = page.events[-1].position.decode() if page.events else after or START
    body = {
        "operation": operation,
        "events": [orjson.Fragment(frame.envelope) for frame in frames],
        "position": reset.position if reset else position,
        "done": _at_end(page),
        "reset": page.reset,
        "snapshot": reset.model_dump(mode="json") if reset else None,
    }
    return Response(orjson.dumps(body), media_type="application/json", headers={"Cache-Control": "no-store"})


def _at_end(page: Page) -> bool:
    last = page.events[-1] if page.events else page.at
    return last is not None and last.type == END


async def _read(operation: str, context: Context, after: str | None, limit: int) -> Page:
    if after is None:
        return Page(await event_log.kept(context.store, operation, limit))
    return await event_log.after(context.store, operation, after, limit)


async def _wait(request: Request, operation: str, after: str, wait_s: float, delivery: Delivery) -> None:
    """Wait until there is something after a position, or there can't be; raise `ClientDisconnect` when nobody waits."""
    try:
        subscription = await context_of(request).hub.subscribe(operation, Start(after), delivery)
    except Ended:
        return
    alarm = Alarm(subscription)
    rung, left = asyncio.create_task(alarm.rung.wait()), asyncio.create_task(_left(request))
    try:
        subscription.attach(alarm)
        await asyncio.wait((rung, left), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if left.done() and not rung.done():  # its place is another's: who polls again would find none
            raise ClientDisconnect
    finally:
        rung.cancel()
        left.cancel()
        subscription.close("client")


async def _left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
