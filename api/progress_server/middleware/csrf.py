"""Requests of foreign pages. CORS keeps a page from reading what is not for it, but not from posting to us: a form of a
stranger's could cancel what the browser's user may, or where nobody has to prove who they are, anything.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import Forbidden
from progress_server.http.origins import allowed
from progress_server.http.problems import problem

_HARMLESS = ("GET", "HEAD", "OPTIONS")


class ForeignPages:
    """Middleware that refuses what would change something, where the page that asks is neither ours nor a friend's.

    Browsers say whose page it is: in words of their own (Fetch Metadata), where those are not said by its origin.
    """

    def __init__(self, app: ASGIApp, friends: tuple[str, ...]) -> None:
        self._app, self._friends = app, friends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, unless a foreign page means harm by it."""
        if scope["type"] != "http" or scope["method"] in _HARMLESS or self._welcome(Headers(scope=scope)):
            await self._app(scope, receive, send)
        else:
            detail = "a page of another origin asks for this: name it in PROGRESS_CORS_ORIGINS if it may"
            await problem(Forbidden.code, detail)(scope, receive, send)

    def _welcome(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin in self._friends or headers.get("sec-fetch-site") in ("same-origin", "none"):
            return True
        return "sec-fetch-site" not in headers and allowed(origin, headers.get("host"), self._friends)
