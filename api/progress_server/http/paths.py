"""The paths that more than routing has to know, and what a request's path and method tell of it before it is routed.

A request is classified once, outside all that asks (`api/progress_server/middleware/access_log.py`). The routes that
read events take their paths from here, so that what is routed and what is classified can't drift apart.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.routing import compile_path
from starlette.types import Scope

STREAM_OF_ONE = "/v1/operations/{id}/stream"
STREAM_OF_MANY = "/v1/stream"
WEBSOCKET_OF_ONE = "/v1/operations/{id}/ws"
WEBSOCKET_OF_MANY = "/v1/ws"
EVENTS = "/v1/operations/{id}/events"

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
"""What nobody has to prove anything for. A list, so that a new route is closed until somebody opens it here."""
OPEN_FOLDER = "/web/"
"""What the page is made of, which is the same for everybody."""

_LIMITED = "/v1/"
_READING = ("GET", "HEAD")
_KEY = "class"  # the key among the `state` of a connection's scope


class RequestClass(NamedTuple):
    """What a request is, as far as its path and its method tell. There are few, and all are made beforehand."""

    is_open: bool = False
    """Whether nobody has to prove anything to have it."""
    limited: bool = False
    """Whether limits hold for it."""
    streams: bool = False
    """Whether it opens a stream of events, server-sent or over a WebSocket: a connection that lasts."""
    waits: bool = False
    """Whether it may be a long poll."""
    of_one: bool = False
    """Whether it reads the events of one operation."""


_OPEN = RequestClass(is_open=True)
_OTHER = RequestClass()
_CALL = RequestClass(limited=True)
_STREAMS_ONE = RequestClass(limited=True, streams=True, of_one=True)
_STREAMS_MANY = RequestClass(limited=True, streams=True)
_HISTORY = RequestClass(limited=True, of_one=True)
_LONG_POLL = RequestClass(limited=True, waits=True, of_one=True)


def classify(scope: Scope) -> RequestClass:
    """Return the class of a request or of a WebSocket."""
    path = _path_of(scope)
    if not path.startswith(_LIMITED):
        return _OPEN if path in OPEN_PATHS or path.startswith(OPEN_FOLDER) else _OTHER
    is_call = scope["type"] == "http"
    if is_call and scope["method"] not in _READING:
        return _CALL
    read = _READS.match(path)
    if read is None:
        return _CALL
    kind = read.lastgroup
    if kind == "history":
        return _LONG_POLL if is_call and _asks_to_wait(scope["query_string"]) else _HISTORY
    return _STREAMS_ONE if kind else _STREAMS_MANY


def note_class(scope: Scope) -> None:
    """Classify a request, for all that asks later."""
    # The state is made here, before anybody copies the scope: the access log looks up what others note in it.
    scope.setdefault("state", {})[_KEY] = classify(scope)


def class_of(scope: Scope) -> RequestClass:
    """Return the class that was noted of a request; of one that nobody classified, it is found out now."""
    try:
        noted: RequestClass = scope["state"][_KEY]
    except KeyError:
        return classify(scope)
    return noted


def operation_in(scope: Scope) -> str:
    """Return the operation that is named in the path of a request which reads the events of one."""
    return _path_of(scope).split("/", 4)[3]


def has_websocket(path: str) -> bool:
    """Return whether there is a WebSocket at a path, which may begin with that of an app that mounts this one."""
    return _WEBSOCKETS.search(path) is not None


def _path_of(scope: Scope) -> str:
    """Return a path as the routes tell it, without what a server says that all is under; "" of the lifespan."""
    path: str = scope.get("path", "")
    root_path: str = scope.get("root_path", "")
    return path.removeprefix(root_path) if root_path else path


def _pattern(path: str, name: str = "") -> str:
    """Return what the router matches a path with, to the letter: its `$` lets a line's end pass.

    So what asks for that is a stream as well. The operation's group gets another name, as there are several in one.
    """
    return compile_path(path)[0].pattern.replace("?P<id>", f"?P<{name}>" if name else "")


_READS = re.compile(
    "|".join(
        (
            _pattern(STREAM_OF_ONE, "stream"),
            _pattern(WEBSOCKET_OF_ONE, "websocket"),
            _pattern(EVENTS, "history"),
            _pattern(STREAM_OF_MANY),
            _pattern(WEBSOCKET_OF_MANY),
        )
    )
)
_WEBSOCKETS = re.compile("|".join(_pattern(path).removeprefix("^") for path in (WEBSOCKET_OF_ONE, WEBSOCKET_OF_MANY)))


def _asks_to_wait(query: bytes) -> bool:
    return bool(query) and any(name == "wait" for name, _ in parse_qsl(query.decode("latin-1")))
