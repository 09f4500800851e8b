"""Requests of foreign pages. CORS keeps a page from reading what is not for it, but not from posting to us: a form of a
stranger's could cancel what the browser's user may, or where nobody has to prove who they are, anything.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import Forbidden
from progress_server.http.origins import Caller, caller_of
from progress_server.http.refusals import reject

_HARMLESS = ("GET", "HEAD", "OPTIONS")


class ForeignPages:
    """Middleware that refuses what would change something, where the page that asks is neither ours nor a friend's."""

    def __init__(self, app: ASGIApp, friends: tuple[str, ...]) -> None:
        self._app, self._friends = app, friends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, unless a foreign page means harm by it."""
        if scope["type"] != "http" or scope["method"] in _HARMLESS or not self._is_foreign(scope):
            await self._app(scope, receive, send)
        else:
            detail = "a page of another origin asks for this: name it in PROGRESS_CORS_ORIGINS if it may"
            await reject(Forbidden(detail), scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        return caller_of(Headers(scope=scope), self._friends) is Caller.FOREIGN
