"""The call that reads events as JSON. It can long-poll, for clients that can't use streams."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from progress_broker.errors import Ended, InvalidInput, Unauthenticated
from progress_broker.history import backwards, event_log
from progress_broker.history.backwards import NEWEST
from progress_broker.history.choosing import Chosen
from progress_broker.history.event_log import Page
from progress_broker.history.losses import Lost
from progress_broker.model.event import END, Event
from progress_broker.model.grants import Action
from progress_broker.model.payloads import Level
from progress_broker.model.position import START
from progress_broker.model.position import parse as parse_position
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
    before: Annotated[
        str | None,
        Query(description="Return the events before this position, newest first.", json_schema_extra=POSITION),
    ] = None,
    order: Annotated[
        Literal["asc", "desc"], Query(description="`desc` returns the newest events first, going back from `before`.")
    ] = "asc",
    tail: Annotated[
        int | None,
        Query(ge=1, le=MAX_LIMIT, description="Return so many of the newest events that match, oldest first."),
    ] = None,
    level: Annotated[
        Level | None, Query(description="Leave out log lines that are less severe. Other events are returned as well.")
    ] = None,
    grep: Annotated[
        str | None,
        Query(min_length=1, max_length=512, description="A part of a text in the events' data, in any case."),
    ] = None,
) -> Response:
    """Read an operation's events as JSON. Continue with the `position` of the response until `done` is true.

    Back from the newest event, continue with the `position` as `before`; `done` says that nothing older is kept. From
    the events of `tail` go on with the `position` as `after`.

    If the position is unknown, or the events after it are no longer stored, `reset` is the reason and `snapshot` is
    the current state of the operation. Continue from `position` all the same: after a loss in Redis it is that of the
    last event which is left, and all that is stored after it follows.
    """
    await require_permission(request, context, Action.READ, operation)
    for position in (after, before):
        if position is not None:
            parse_position(position)
    chosen = Chosen(read_types(types), level, grep or "")
    if tail is not None or before is not None or order == "desc":
        _check_direction(after, before, order, tail, wait)
        return await _back(context, operation, before or NEWEST, chosen, tail or limit, is_tail=tail is not None)
    principal = principal_of(request)
    delivery = bind_to_principal(ALL, principal, context.hub)
    until = time.monotonic() + min(wait, context.settings.max_long_poll_s)
    count, left_out = limit, 0
    while True:
        page = await _read(operation, context, after, count)
        frames = [make_frame(event) for event in page.events if chosen.has(event)]
        if len(frames) > limit:
            frames = frames[:limit]
            page = Page([event for event in page.events if event.n <= frames[-1].n])
        if frames or page.reset or _at_end(page):
            break
        if page.events:  # none that was asked for: read on, more at a time
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


def _check_direction(after: str | None, before: str | None, order: str, tail: int | None, wait: float) -> None:
    """Raise `InvalidInput` for parameters that name two directions."""
    if after is not None or wait:
        raise InvalidInput("after and wait go forwards: leave them out, or before, order and tail", field="after")
    if tail is not None and (before is not None or order == "desc"):
        raise InvalidInput("tail is the newest events: leave it out, or before and order", field="tail")


async def _back(
    context: Context, operation: str, position: str, chosen: Chosen, limit: int, *, is_tail: bool
) -> Response:
    """Return the events before a position, the newest first; or as a tail the newest ones, the oldest first."""
    found: list[Event] = []
    newest: Event | None = None
    count, left_out, more = limit, 0, True
    while more and len(found) < limit and left_out < MOST_LEFT_OUT:
        page = await backwards.before(context.store, operation, position, count)
        newest = newest or next(iter(page.events), None)
        for event in page.events:
            position, left_out = event.position.decode(), left_out + 1
            if chosen.has(event):
                found.append(event)
                left_out -= 1
                if len(found) == limit:
                    break
        more = page.more or (len(found) == limit and event is not page.events[-1])
        count = min(10 * count, MAX_LIMIT)
    # Without events, reading the snapshot shows whether the operation exists at all: it raises `NotFound` if not.
    snapshot = None if newest else await context.store.get(operation)
    done = not more
    if is_tail:
        found.reverse()
        position = newest.position.decode() if newest else START
        done = newest is not None and newest.type == END
    elif position == NEWEST:
        position = snapshot.position if snapshot else START
    body = {
        "operation": operation,
        "events": [orjson.Fragment(make_frame(event).envelope) for event in found],
        "position": position,
        "done": done,
        "reset": None,
        "snapshot": None,
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
