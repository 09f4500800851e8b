"""Paths that the middleware needs too, and the class of a request by its path and method, before it is routed.

The outermost middleware (`api/progress_server/middleware/access_log.py`) classifies each request once. The routes that
read events take their paths from here, so routing and classification always agree.
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
OPERATIONS = "/v1/operations"
COUNTS = "/v1/operations/counts"
EVENTS = "/v1/operations/{id}/events"
EXPORT_OF_ONE = "/v1/operations/{id}/export"
EXPORT_OF_MANY = "/v1/export"
REPLAY = "/v1/operations/{id}/replay"
WORKER_SIGNALS = "/v1/workers/signals"

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
"""Paths that need no credentials. They are listed, so that a new route needs credentials until it is added here."""
OPEN_FOLDER = "/web/"
"""The files of the pages. They need no credentials either: they are the same for everybody."""

_LIMITED = "/v1/"
_READING = ("GET", "HEAD")
_KEY = "class"  # the key among the `state` of a connection's scope


class RequestClass(NamedTuple):
    """The class of a request by its path and method. All instances are created once, below."""

    is_open: bool = False
    """Whether it needs no credentials."""
    limited: bool = False
    """Whether limits apply to it."""
    streams: bool = False
    """Whether it opens a long-lived stream of events: server-sent events or a WebSocket."""
    is_long_poll: bool = False
    """Whether it may be a long poll, or takes as long: an export, a replay."""
    of_one: bool = False
    """Whether it reads the events of exactly one operation."""


_OPEN = RequestClass(is_open=True)
_OTHER = RequestClass()
_CALL = RequestClass(limited=True)
_STREAMS_ONE = RequestClass(limited=True, streams=True, of_one=True)
_STREAMS_MANY = RequestClass(limited=True, streams=True)
_HISTORY = RequestClass(limited=True, of_one=True)
_SIGNALS = RequestClass(limited=True, is_long_poll=True)
_EXPORT = RequestClass(limited=True, is_long_poll=True)
_LONG_POLL = RequestClass(limited=True, is_long_poll=True, of_one=True)


def classify(scope: Scope) -> RequestClass:
    """Return the class of a request or of a WebSocket."""
    path = path_of(scope)
    if not path.startswith(_LIMITED):
        return _OPEN if path in OPEN_PATHS or path.startswith(OPEN_FOLDER) else _OTHER
    is_call = scope["type"] == "http"
    if is_call and scope["method"] not in _READING:
        return _SIGNALS if path == WORKER_SIGNALS else _CALL
    read = _READS.match(path)
    if read is None:
        return _CALL
    kind = read.lastgroup
    if kind in ("export", "exports", "replay"):
        return _EXPORT
    if kind == "history":
        return _LONG_POLL if is_call and _asks_to_wait(scope["query_string"]) else _HISTORY
    return _STREAMS_ONE if kind else _STREAMS_MANY


def may_be_compressed(scope: Scope) -> bool:
    """Return whether the response to a request is read whole, and may be large."""
    return scope["type"] == "http" and scope["method"] in _READING and _READ_WHOLE.match(path_of(scope)) is not None


def store_class(scope: Scope) -> None:
    """Classify a request, and store the class for the inner layers."""
    # Create the state before other middleware copies the scope: the access log later reads what they store in it.
    scope.setdefault("state", {})[_KEY] = classify(scope)


def class_of(scope: Scope) -> RequestClass:
    """Return the stored class of a request, or classify the request now if none is stored."""
    try:
        found: RequestClass = scope["state"][_KEY]
    except KeyError:
        return classify(scope)
    return found


def operation_in(scope: Scope) -> str:
    """Return the operation id in the path of a request whose class is `of_one`."""
    return path_of(scope).split("/", 4)[3]


def path_of(scope: Scope) -> str:
    """Return a request's path without the `root_path`, exactly as the router does; "" for the lifespan."""
    path: str = scope.get("path", "")
    root_path: str = scope.get("root_path", "")
    if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
        return path[len(root_path) :]
    return path


def _pattern(path: str, name: str = "") -> str:
    """Return exactly the pattern that the router uses for a path.

    The router's `$` also matches before a final newline. With the same pattern such a request is classified as a
    stream too. `name` renames the group of the operation id, because one expression joins several patterns.
    """
    return compile_path(path)[0].pattern.replace("?P<id>", f"?P<{name}>" if name else "")


_READS = re.compile(
    "|".join(
        (
            _pattern(STREAM_OF_ONE, "stream"),
            _pattern(WEBSOCKET_OF_ONE, "websocket"),
            _pattern(EVENTS, "history"),
            _pattern(EXPORT_OF_ONE, "export"),
            _pattern(REPLAY, "replay"),
            f"(?P<exports>{_pattern(EXPORT_OF_MANY)})",
            _pattern(STREAM_OF_MANY),
            _pattern(WEBSOCKET_OF_MANY),
        )
    )
)


_READ_WHOLE = re.compile("|".join((_pattern(OPERATIONS), _pattern(COUNTS), _pattern(EVENTS, "id"))))


def _asks_to_wait(query: bytes) -> bool:
    return bool(query) and any(name == "wait" for name, _ in parse_qsl(query.decode("latin-1")))
