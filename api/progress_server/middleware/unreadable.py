"""Rejects requests that could not be read: the connection's protocol hands them over with an error code alone."""

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_server.http.problems import problem
from progress_server.protocols.extensions import REJECTION, REJECTION_DETAILS


class UnreadableMiddleware:
    """Middleware that answers such a request with its problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it could not be read."""
        code: str | None = scope.get("extensions", {}).get(REJECTION)
        if code is None:
            await self._app(scope, receive, send)
        else:
            await problem(code, REJECTION_DETAILS[code])(scope, receive, send)
