"""The call that replays the events of an operation, as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.model.grants import Action
from progress_broker.model.position import order, parse
from progress_broker.queries.times import read_time
from progress_broker.replay.recording import Choice, Recorded
from progress_broker.replay.timeline import Timeline
from progress_broker.stream.delivery import ALL, Start
from progress_broker.transfer.ahead import read_ahead
from progress_broker.transfer.redis.source import RedisCopy, read_one
from progress_server.auth.authorization import require_permission
from progress_server.auth.principal import principal_of
from progress_server.auth.revocation import bind_to_principal
from progress_server.callback.connection import connection_in
from progress_server.context import Context, Id, InContext
from progress_server.http.headers import EVENT_STREAM
from progress_server.http.openapi import rejections
from progress_server.http.paths import REPLAY
from progress_server.http.query_names import CheckedRoute
from progress_server.sse.query import TYPES, read_types
from progress_server.sse.response import stream_rejected, stream_response

router = APIRouter(tags=["events"], route_class=CheckedRoute)

_FASTEST, _SLOWEST = 10_000.0, 0.01
_RESPONSES: dict[int | str, Any] = {
    200: {"description": "The events, and at last `replay-end`.", "content": {"text/event-stream": {}}},
    204: {"description": "Nothing follows the position: EventSource stops."},
    **rejections("not-found", "gone", "too-many-streams", "at-capacity", "draining", "storage-unavailable"),
}
_WHEN = "`2026-11-30T14:05:00Z`, `1h` ago, or milliseconds since 1970."


@router.get(REPLAY, response_class=Response, responses=_RESPONSES)
async def replay(
    operation: Id,
    request: Request,
    context: InContext,
    speed: Annotated[
        str, Query(description="How many times faster; `max`: without pauses.", pattern=r"^(\d+(\.\d+)?|max)$")
    ] = "1",
    idle_limit_ms: Annotated[int | None, Query(ge=0, description="Longer pauses are cut to this.")] = None,
    since: Annotated[str | None, Query(description=f"Only events since then: {_WHEN}")] = None,
    until: Annotated[str | None, Query(description=f"Only events before then: {_WHEN}")] = None,
    after: Annotated[str | None, Query(description="Only events after this position; `Last-Event-ID` wins.")] = None,
    types: Annotated[
        str | None,
        Query(description="Event types, separated by commas, and `end`.", json_schema_extra={"pattern": TYPES}),
    ] = None,
) -> Response:
    """Replay what is kept of an operation up to now, with the pauses that were between its events, or faster.

    The events are those of a stream, with their own times. At the end comes `replay-end`, with how many there were, and
    within how many milliseconds of their times 99 % of them were sent. It is one of the open streams.
    """
    try:
        await require_permission(request, context, Action.READ, operation)
        position = request.headers.get("last-event-id") or after
        choice = await _choice(context, since, until, position, types)
        timeline = Timeline(_speed(speed), inf if idle_limit_ms is None else idle_limit_ms / 1000)
        copy = await read_one(context.store, operation)
        if position is not None and order(copy.operation.position) <= parse(position):
            return Response(status_code=204)
        if request.method == "HEAD":
            return Response(headers=EVENT_STREAM)
        wanted = connection_in(request.scope).delivery(ALL)
        delivery = bind_to_principal(wanted, principal_of(request), context.hub)
        start = Start(position, beginning=position is None)
        stream = context.hub.replays.open(operation, _chosen(copy, choice), timeline, start, delivery)
    except BrokerError as error:
        return stream_rejected(request, error)
    return stream_response(request, stream, 0)


def _speed(text: str) -> float:
    speed = inf if text == "max" else float(text)
    if speed != inf and not _SLOWEST <= speed <= _FASTEST:
        raise InvalidInput(f"speed {text[:20]}: expected {_SLOWEST:g} to {_FASTEST:g}, or max", field="speed")
    return speed


async def _choice(
    context: Context, since: str | None, until: str | None, after: str | None, types: str | None
) -> Choice:
    now_ms = round(1000 * (await context.store.now()).timestamp()) if since or until else 0
    if after is not None:
        parse(after)
    times: list[int | None] = []
    for name, text in (("since", since), ("until", until)):
        try:
            times.append(None if text is None else read_time(text, now_ms))
        except ValueError as error:
            raise InvalidInput(f"{name}: {error}", field=name) from None
    wanted = read_types(types)
    chosen = frozenset(type.decode() for type in wanted) if wanted else frozenset[str]()
    return Choice(times[0], times[1], after, chosen)


async def _chosen(copy: RedisCopy, choice: Choice) -> AsyncGenerator[list[Recorded]]:
    async with aclosing(read_ahead(copy.events())) as parts:
        async for part in parts:
            yield [Recorded(copy.operation.id, event) for event in part if choice.has(event)]
