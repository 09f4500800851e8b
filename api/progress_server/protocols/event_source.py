"""sse-starlette's response, which neither changes uvicorn nor polls.

By itself it does both, to end streams when a server stops: when it is imported it puts a method of its own in the place
of `uvicorn.Server.handle_exit`, and while streams are open a task looks twice a second whether the server stops. Our
hub ends streams, with a last event for their clients. And a process may run other servers, whose signals are not ours
to take.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from progress_server.protocols.names import QUIET_EVENT_SOURCE, missing_from


@contextmanager
def _uvicorn_unchanged() -> Iterator[None]:
    """Put `uvicorn.Server.handle_exit` back as it was. If others imported sse-starlette before, it stays as it is."""
    try:
        import uvicorn
    except ImportError:  # another server runs the app; then nothing is changed either
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
    # It will poll; but what it finds must not cut streams before their clients are told.
    with suppress(ImportError, AttributeError):
        from sse_starlette.sse import AppStatus

        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


class QuietEventSourceResponse(EventSourceResponse):
    """A response that ends when its body ends or its client leaves, and not because a server stops."""

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Wait for ever, in the place of what starts the polling task and waits for its answer."""
        await asyncio.Event().wait()
