"""Rejects requests that could not be read: the connection's protocol hands them over with an error code alone."""

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_server.http.problems import problem
from progress_server.protocols.extensions import REJECTION

_DETAILS = {
    "bad-request": "not a valid HTTP request",
    "request-timeout": "the request's headers did not arrive in time (PROGRESS_REQUEST_TIMEOUT_S); send them at once",
    "uri-too-long": "the URL exceeds the limit (PROGRESS_MAX_URL_BYTES); ask for less at a time",
    "rate-limited": "too many requests were sent ahead of their responses; wait for responses",
    "head-too-large": "the URL and the headers exceed the limit (PROGRESS_MAX_HEAD_BYTES); an oversized cookie is the"
    " usual cause",
}


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
            await problem(code, _DETAILS[code])(scope, receive, send)
