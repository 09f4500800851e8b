"""Which requests open a stream: a connection that lasts, so that limits count it."""

import re
from urllib.parse import parse_qsl

from starlette.types import Scope

# As the router matches, to the letter: its `$` lets a line's end pass, so what asks for that is a stream as well.
_STREAM = re.compile(r"/v1/(?:operations/(?P<operation>[^/]+)/)?(?:stream|ws)$")
_WEBSOCKET = re.compile(r"/v1/(?:operations/[^/]+/)?ws$")
_HISTORY = re.compile(r"/v1/operations/[^/]+/events$")


def path_of(scope: Scope) -> str:
    """Return a request's path as the routes tell it, without what a server says that all is under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def opens_a_stream(scope: Scope) -> bool:
    """Return whether a request opens a stream of events, server-sent or over a WebSocket."""
    return stream_in(scope) is not None


def stream_in(scope: Scope) -> "re.Match[str] | None":
    """Return the stream that a request opens, its group `operation` None if it is one of many; None for other calls."""
    if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
        return None
    return _STREAM.match(path_of(scope)) if scope["type"] in ("http", "websocket") else None


def has_websocket(path: str) -> bool:
    """Return whether there is a WebSocket at a path, which may begin with that of an app that mounts this one."""
    return _WEBSOCKET.search(path) is not None


def waits(scope: Scope) -> bool:
    """Return whether a request may be a long poll."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and _HISTORY.match(path_of(scope)) is not None
        and any(name == "wait" for name, _ in parse_qsl(scope["query_string"].decode("latin-1")))
    )
