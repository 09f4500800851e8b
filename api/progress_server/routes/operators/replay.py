"""The call that replays the events of an operation, as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from math import inf
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.model.grants import Action
from progress_broker.model.position import order, parse
from progress_broker.queries.times import read_time
from progress_broker.replay.player import Player
from progress_broker.replay.recording import Choice, Recorded
from progress_broker.replay.timeline import Timeline
from progress_broker.runtime.tasks import end
from progress_broker.transfer.ahead import read_ahead
from progress_broker.transfer.redis.source import RedisCopy, read_one
from progress_server.auth.authorization import require_permission
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext
from progress_server.http.headers import EVENT_STREAM
from progress_server.http.openapi import rejections
from progress_server.http.paths import REPLAY
from progress_server.http.query_names import CheckedRoute
from progress_server.sse.query import TYPES, read_types

router = APIRouter(tags=["events"], route_class=CheckedRoute)

LOOK_S = 1.0
"""How often it looks whether the caller may still read, and whether the server shuts down."""
PING_S = 15.0
_AHEAD = 4
"""Batches that may wait for a slow client."""
_FASTEST, _SLOWEST = 10_000.0, 0.01
_RESPONSES: dict[int | str, Any] = {
    200: {"description": "The events, and at last `replay-end`.", "content": {"text/event-stream": {}}},
    204: {"description": "Nothing follows the position: EventSource stops."},
    **rejections("not-found", "gone", "too-many-streams"),
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
    within how many milliseconds of their times 99 % of them were sent. It counts as a stream.
    """
    await require_permission(request, context, Action.READ, operation)
    position = request.headers.get("last-event-id") or after
    choice = await _choice(context, since, until, position, types)
    timeline = Timeline(_speed(speed), inf if idle_limit_ms is None else idle_limit_ms / 1000)
    copy = await read_one(context.store, operation)
    if position is not None and order(copy.operation.position) <= parse(position):
        return Response(status_code=204)
    if request.method == "HEAD":
        return Response(headers=EVENT_STREAM)
    return StreamingResponse(_frames(request, context, copy, choice, timeline), headers=EVENT_STREAM)


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


class _Queue:
    """Events that are due, on their way to the client."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue(_AHEAD)

    async def send(self, events: Sequence[Recorded]) -> None:
        await self.waiting.put(b"".join([recorded.frame.wire for recorded in events]))


async def _frames(
    request: Request, context: Context, copy: RedisCopy, choice: Choice, timeline: Timeline
) -> AsyncGenerator[bytes]:
    principal, revocation = principal_of(request), guard_of(request).revocation
    queue = _Queue()
    player = Player(queue, timeline)
    playing = asyncio.create_task(player.play_parts(_chosen(copy, choice)))
    silent_s = 0.0
    yield b": replay\n\n"
    try:
        while not (playing.done() and queue.waiting.empty()):
            getting = asyncio.ensure_future(queue.waiting.get())
            done, _ = await asyncio.wait((getting, playing), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if context.hub.draining or revocation.is_expired_or_revoked(principal):
                await end(getting)
                return  # without `replay-end`: the client goes on from its position elsewhere, if it may
            if getting in done:
                silent_s = 0.0
                yield getting.result()
                continue
            await end(getting)
            silent_s += LOOK_S
            if silent_s >= PING_S:
                silent_s = 0.0
                yield b": ping\n\n"
        try:
            playing.result()
        except BrokerError:  # it was deleted, or Redis is away
            return
        late_ms = player.lateness.percentile_ms(99)
        said = {"operation": copy.operation.id, "events": player.sent, "late_p99_ms": late_ms}
        yield b"event: replay-end\ndata: %b\n\n" % orjson.dumps(said)
    finally:
        await end(playing)


async def _chosen(copy: RedisCopy, choice: Choice) -> AsyncGenerator[list[Recorded]]:
    async with aclosing(read_ahead(copy.events())) as parts:
        async for part in parts:
            yield [Recorded(copy.operation.id, event) for event in part if choice.has(event)]
