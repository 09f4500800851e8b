"""The log of the replica that answers, as it is written."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from progress_broker.model.grants import Action
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.context import Context, InContext
from progress_server.http.headers import EVENT_STREAM
from progress_server.http.openapi import Responses, rejections
from progress_server.http.query_names import CheckedRoute
from progress_server.observability.log_ring import LINES, Line
from progress_server.protocols.event_source import QuietEventSourceResponse

router = APIRouter(prefix="/v1/admin", tags=["operators"], route_class=CheckedRoute)

LOOK_S = 0.5
"""How often it looks whether the server drains, or the caller's time is over."""

Level = Literal["debug", "info", "warning", "error"]

_STREAM: Responses = {
    200: {"description": "The lines; the schema is that of one.", "content": {"text/event-stream": {"schema": {}}}},
    **rejections("at-capacity"),
}


@router.get("/monitor", response_class=Response, responses=_STREAM)
async def monitor(
    request: Request,
    context: InContext,
    level: Annotated[Level, Query(description="Only lines of this level and above.")] = "debug",
    logger: Annotated[str, Query(description="Only lines of this logger and those below it.")] = "",
    last: Annotated[int, Query(ge=0, le=LINES, description="How many lines to begin with.")] = 100,
    follow: Annotated[bool, Query(description="Go on with lines that are written from now on.")] = True,
) -> Response:
    """Follow the log of the replica that answers, as server-sent events `log`, each with a line as a JSON object.

    What the log level of the server leaves out is not there either. It ends after an hour at most, and when the server
    drains.
    """
    require_permission_everywhere(request, Action.OBSERVE)
    if request.method == "HEAD":
        return Response(headers=dict(EVENT_STREAM))
    lines = _lines(context, logging.getLevelNamesMapping()[level.upper()], logger, last, follow=follow)
    first = await anext(lines, None)  # before the response begins, or no error could be told
    return QuietEventSourceResponse(_events(first, lines), ping=15, headers=dict(EVENT_STREAM))


async def _lines(context: Context, level: int, logger: str, last: int, *, follow: bool) -> AsyncGenerator[Line | None]:
    hub, longest_s = context.hub, context.settings.stream_max_age_s
    until = hub.clock() + longest_s
    async with aclosing(context.log.follow(last, min(LOOK_S, longest_s), on=follow)) as lines:
        async for line in lines:
            if hub.draining or hub.clock() >= until:
                return
            if line is None or (_levels()[line["level"]] >= level and _is_below(line["logger"], logger)):
                yield line


def _levels() -> dict[str, int]:
    return {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}


def _is_below(name: str, logger: str) -> bool:
    return not logger or name == logger or name.startswith(f"{logger}.")


async def _events(first: Line | None, lines: AsyncGenerator[Line | None]) -> AsyncIterator[dict[str, Any]]:
    async with aclosing(lines):
        yield {"comment": "lines follow"}  # so that the response begins before there is a line
        if first is not None:
            yield _event(first)
        async for line in lines:
            if line is not None:
                yield _event(line)


def _event(line: Line) -> dict[str, Any]:
    return {"event": "log", "data": orjson.dumps(line, default=str).decode()}
