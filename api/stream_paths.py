"""Which requests open a stream: a connection that lasts, so that limits count it."""

import re
from urllib.parse import parse_qsl

from starlette.types import Scope

# As the router matches, to the letter: its `$` lets a line's end pass, so what asks for that is a stream as well.
_STREAM = re.compile(r"/v1/(operations/[^/]+/)?(stream|ws)$")
_HISTORY = re.compile(r"/v1/operations/[^/]+/events$")


def path_of(scope: Scope) -> str:
    """Return a request's path as the routes tell it, without what a server says that all is under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def opens_a_stream(scope: Scope) -> bool:
    """Return whether a request opens a stream of events, server-sent or over a WebSocket."""
    if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["type"] in ("http", "websocket") and _STREAM.match(path_of(scope)) is not None


def waits(scope: Scope) -> bool:
    """Return whether a request may be a long poll."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and _HISTORY.match(path_of(scope)) is not None
        and any(name == "wait" for name, _ in parse_qsl(scope["query_string"].decode("latin-1")))
    )
