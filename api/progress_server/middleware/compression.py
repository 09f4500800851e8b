"""Compresses what may be large and is read whole: lists, counts, history. Never streams, which end late or never.

Responses to requests with cookies stay as they are: a page of another site can have a browser send such requests, with
texts of its own in them, and could learn from the sizes of the responses what else is in them.
"""

from collections.abc import Awaitable

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_server.http.paths import may_be_compressed

LEAST_BYTES = 1_024
_LEVEL = 5


class CompressionMiddleware:
    """Compresses some responses with gzip."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compressed = GZipMiddleware(app, minimum_size=LEAST_BYTES, compresslevel=_LEVEL)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on. No coroutine of its own stays with a stream."""
        compress = may_be_compressed(scope) and not any(name == b"cookie" for name, _ in scope["headers"])
        return (self._compressed if compress else self._app)(scope, receive, send)
