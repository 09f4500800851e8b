"""Protection against cross-site request forgery.

CORS stops a foreign page from reading responses, but not from sending a POST. A form on a foreign page could cancel
whatever the browser's user may cancel or, without authentication, anything.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import Forbidden
from progress_server.http.origins import RequestOrigin, request_origin
from progress_server.http.rejections import reject

_HARMLESS = ("GET", "HEAD", "OPTIONS")


class CsrfMiddleware:
    """Middleware that rejects changing requests (all but GET, HEAD and OPTIONS) from pages of untrusted origins."""

    def __init__(self, app: ASGIApp, trusted_origins: tuple[str, ...]) -> None:
        self._app, self._trusted_origins = app, trusted_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless a foreign page sends a changing request."""
        if scope["type"] != "http" or scope["method"] in _HARMLESS or not self._is_foreign(scope):
            await self._app(scope, receive, send)
        else:
            detail = "request from a page of another origin; add that origin to PROGRESS_CORS_ORIGINS to allow it"
            await reject(Forbidden(detail), scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        return request_origin(Headers(scope=scope), self._trusted_origins) is RequestOrigin.FOREIGN
