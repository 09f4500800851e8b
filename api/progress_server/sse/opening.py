"""Opening a stream, of one operation or of many: its response, or the answer to who gets none."""

import asyncio

from fastapi import Request
from starlette.responses import Response

from progress_broker.errors import BrokerError
from progress_broker.stream.stream import Stream
from progress_server.callback.connection import visit_in
from progress_server.context import context_of
from progress_server.http.problems import PASSING
from progress_server.http.refusals import refusal
from progress_server.sse.response import StreamResponse


def opened(request: Request, stream: Stream, wait_s: float) -> Response:
    """Return a stream's response. It may await what is not there yet for so long, and its visit lasts as long as it."""
    context = context_of(request)
    settings, visit = context.settings, visit_in(request.scope)
    visit.last_as(stream, context.hub.streams)
    if wait_s > 0:
        asyncio.get_running_loop().call_later(min(wait_s, settings.max_wait_s), stream.give_up)
    claim = None if request.method == "HEAD" else visit.claim and visit.opened
    return StreamResponse(stream, settings.client_buffer_bytes, settings.gzip_over, claim)


def not_opened(request: Request, error: BrokerError) -> Response:
    """Count a stream that could not be opened, and return the answer if time mends that; else raise the error."""
    context = context_of(request)
    context.hub.tally.refused[error.code] += 1
    if error.code not in PASSING:
        raise error
    return refusal(error.code, error.detail, request.headers.get("accept"), context.settings.retry_ms / 1000)
