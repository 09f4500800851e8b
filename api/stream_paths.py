"""Which requests open a stream: a connection that lasts, so that limits count it."""

import re

from starlette.types import Scope

_STREAM = re.compile(r"/v1/(operations/[^/]+/)?(stream|ws)$")
_HISTORY = re.compile(r"/v1/operations/[^/]+/events$")


def opens_a_stream(scope: Scope) -> bool:
    """Return whether a request opens a stream of events, server-sent or over a WebSocket."""
    if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["type"] in ("http", "websocket") and _STREAM.fullmatch(scope["path"]) is not None


def waits(scope: Scope) -> bool:
    """Return whether a request may be a long poll."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and b"wait=" in scope["query_string"]
        and _HISTORY.fullmatch(scope["path"]) is not None
    )
