"""What a server that stops can't wait for: calls are told so, and the log has no trace of what is no error."""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import Draining
from progress_server.http.refusals import refuse


class Interruptible:
    """The whole app, whose calls answer `draining` when they are cancelled because the server stops."""

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping():
                raise
            if scope["type"] == "lifespan":  # it had its time
                return
            if scope["type"] != "http":
                raise
            fault = Draining("this server has stopped, and did not wait for the rest of the request")
            try:
                await refuse(fault, scope, receive, send)
            except RuntimeError:  # another answer has begun
                raise asyncio.CancelledError from None
