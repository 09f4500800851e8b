"""The call that reads events as JSON. It can long-poll, for clients that can't use streams."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from progress_broker.errors import Ended, Unauthenticated
from progress_broker.history import event_log
from progress_broker.history.event_log import Page
from progress_broker.history.losses import Lost
from progress_broker.model.event import END
from progress_broker.model.grants import Action
from progress_broker.model.position import START
from progress_broker.model.position import parse as parse_position
from progress_broker.stream.batching import wanted
from progress_broker.stream.delivery import ALL, Delivery, Start
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.stream.outlet import UNENCODED
from progress_broker.stream.subscription import Subscription
from progress_server.auth.authorization import require_permission
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import principal_of
from progress_server.auth.revocation import bind_to_principal
from progress_server.context import Context, Id, InContext, context_of
from progress_server.http.answers import answer
from progress_server.http.paths import EVENTS
from progress_server.http.query_names import CheckedRoute
from progress_server.limits.slots import address_of
from progress_server.sse.query import POSITION, TYPES, read_types

router = APIRouter(tags=["events"], route_class=CheckedRoute)

MAX_LIMIT = 1000
MOST_LEFT_OUT = 5_000
"""About how many events of other types one call reads: an operation may have a hundred thousand."""


class Alarm:
    """The outlet of a long poll: it signals that there is something to read. The call then reads it from the log."""

    kind = "poll"
    encoding = UNENCODED

    def __init__(self, subscription: Subscription, client: str) -> None:
        self.client = client
        self.rung = asyncio.Event()
        self.closed = False
        self._subscription = subscription

    def write(self, frames: Sequence[Frame]) -> None:
        """Signal at the first event. The event itself is dropped: the call reads it from the log."""
        if any(frame.n for frame in frames):
            self._subscription.pause_writing()
            self.rung.set()

    def close(self) -> None:
        """Signal: no more events will come."""
        self.closed = True
        self.rung.set()

    abort = close


@router.get(EVENTS)
async def history(
    operation: Id,
    request: Request,
    context: InContext,
    after: Annotated[
        str | None,
        Query(
            description="Return the events after this position. Without it, return from the oldest stored event.",
            json_schema_extra=POSITION,
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Maximum number of events.")] = 100,
    wait: Annotated[float, Query(ge=0, description="Seconds to wait for an event if there is none.")] = 0,
    types: Annotated[
        str | None,
        Query(
            description="Event types to return, separated by commas. `end` is always included.",
            json_schema_extra={"pattern": TYPES},
        ),
    ] = None,
) -> Response:
    """Read an operation's events as JSON. Continue with the `position` of the response until `done` is true.

    If the position is unknown, or the events after it are no longer stored, `reset` is the reason and `snapshot` is
    the current state of the operation. Continue from `position` all the same: after a loss in Redis it is that of the
    last event which is left, and all that is stored after it follows.
    """
    await require_permission(request, context, Action.READ, operation)
    if after is not None:
        parse_position(after)
    wanted_types = read_types(types)
    principal = principal_of(request)
    delivery = bind_to_principal(ALL, principal, context.hub)
    until = time.monotonic() + min(wait, context.settings.max_long_poll_s)
    count, left_out = limit, 0
    while True:
        page = await _read(operation, context, after, count)
        frames = wanted([make_frame(event) for event in page.events], wanted_types)
        if len(frames) > limit:
            frames = frames[:limit]
            page = Page([event for event in page.events if event.n <= frames[-1].n])
        if frames or page.reset or _at_end(page):
            break
        if page.events:  # none of the requested types: read on, more at a time
            after = page.events[-1].position.decode()
            left_out += len(page.events)
            if left_out >= MOST_LEFT_OUT:  # the caller goes on from there
                break
            count = min(10 * count, MAX_LIMIT)
        elif (left_s := until - time.monotonic()) > 0:
            if await _wait(request, operation, after or START, left_s, delivery) and not context.hub.draining:
                until = 0.0  # it was ended, perhaps by an operator: only look once more
            if guard_of(request).revocation.is_expired_or_revoked(principal):
                raise Unauthenticated("the credentials expired or were revoked during a long poll")
        else:
            break
    position = page.events[-1].position.decode() if page.events else after or START
    shared = None
    if page.reset == "lost":
        shared = await event_log.last_shared(context.store, operation, Lost(position.encode()))
    # Without events, reading the snapshot shows whether the operation exists at all: it raises `NotFound` if not.
    snapshot = None if page.events else await context.store.get(operation)
    reset = snapshot if page.reset else None
    if reset is not None:
        position = reset.position if shared is None else shared.position.decode()
    body = {
        "operation": operation,
        "events": [orjson.Fragment(frame.envelope) for frame in frames],
        "position": position,
        "done": _at_end(page),
        "reset": page.reset,
        "snapshot": reset.model_dump(mode="json") if reset else None,
    }
    return answer(body)


def _at_end(page: Page) -> bool:
    last = page.events[-1] if page.events else page.at
    return last is not None and last.type == END


async def _read(operation: str, context: Context, after: str | None, limit: int) -> Page:
    if after is None:
        return Page(await event_log.kept(context.store, operation, limit))
    return await event_log.after(context.store, operation, after, limit)


async def _wait(request: Request, operation: str, after: str, wait_s: float, delivery: Delivery) -> bool:
    """Wait until there is an event after a position, or the operation has ended. Return whether the wait was ended.

    Raise `ClientDisconnect` if the client disconnects.
    """
    try:
        subscription = await context_of(request).hub.subscribe(operation, Start(after), delivery)
    except Ended:
        return False
    alarm = Alarm(subscription, address_of(request.scope))
    rung, left = asyncio.create_task(alarm.rung.wait()), asyncio.create_task(_left(request))
    try:
        subscription.attach(alarm)
        await asyncio.wait((rung, left), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if left.done() and not rung.done():  # free its slot now: the client may already poll again, and needs one
            raise ClientDisconnect
    finally:
        rung.cancel()
        left.cancel()
        ended = alarm.closed
        subscription.close("client")
    return ended


async def _left(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
