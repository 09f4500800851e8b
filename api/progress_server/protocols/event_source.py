"""sse-starlette's response, changed so that it neither patches uvicorn nor polls.

By default it does both, to end streams when a server stops: on import it replaces `uvicorn.Server.handle_exit`, and
while streams are open a task checks twice a second whether the server stops. Here the hub ends streams, with a last
event for their clients. And the process may run other servers, whose signals must not be intercepted.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from progress_server.protocols.names import QUIET_EVENT_SOURCE, missing_from


@contextmanager
def _uvicorn_unchanged() -> Iterator[None]:
    """Restore `uvicorn.Server.handle_exit` after the block. If other code imported sse-starlette before, do nothing."""
    try:
        import uvicorn
    except ImportError:  # another server runs the app, so there is nothing to restore
        yield
        return
    server: Any = uvicorn.Server
    absent = object()
    before = getattr(server, "handle_exit", absent)
    if before is absent:
        server.handle_exit = None  # else the import fails
    try:
        yield
    finally:
        if before is absent:
            del server.handle_exit
        else:
            server.handle_exit = before


with _uvicorn_unchanged():
    from sse_starlette import EventSourceResponse

if missing_from(QUIET_EVENT_SOURCE) is not None:
    # It will poll. But the result must not cut streams before their clients get the last event.
    with suppress(ImportError, AttributeError):
        from sse_starlette.sse import AppStatus

        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


class QuietEventSourceResponse(EventSourceResponse):
    """A response that ends when its body ends or its client disconnects, and not because a server stops."""

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Wait forever. It replaces the method that starts the polling task and waits for its result."""
        await asyncio.Event().wait()
