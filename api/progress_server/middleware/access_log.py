"""Access log: each request is classified and gets an id. When its response begins, it is counted, timed and logged."""

import itertools
import logging
import re
import time
from collections.abc import Iterable
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address
from secrets import token_hex
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from progress_broker.runtime.tally import Tally
from progress_broker.runtime.tracing import is_on
from progress_server.context import LiveSettings
from progress_server.http.headers import CONNECTION_HEADER
from progress_server.http.paths import store_class
from progress_server.http.problems import STATUS_OF_CODE
from progress_server.observability.tracing import RequestSpan, span_of

log = logging.getLogger(__name__)

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the current request, for log lines."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LONGEST_ADDRESS = 45
_NOT_STARTED = 499
"""Status in the log for a request whose client disconnected before the response. It is counted as 4xx."""


class AccessLogMiddleware:
    """The outermost middleware, so that it sees rejections and internal errors too.

    Its log lines are of level `info` if the access log is on, else of level `debug`.
    """

    def __init__(self, app: ASGIApp, tally: Tally, live: LiveSettings) -> None:
        self._app, self.tally, self._live = app, tally, live
        self._name, self._numbers = token_hex(4), itertools.count(1)
        self._traced = is_on()

    @property
    def level(self) -> int:
        """The level of its log lines."""
        return logging.INFO if self._live.access_log else logging.DEBUG

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and observe its response."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        drop_false_address(scope)
        store_class(scope)  # in the outermost middleware, because all inner layers read the class
        id = _given_id(scope) or f"{self._name}-{next(self._numbers)}"
        REQUEST_ID.set(id)
        answer = ResponseObserver(self, scope, send, id, span_of(scope) if self._traced else None)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:  # the server logs the traceback
            log.error("request %s failed with an internal error", id)
            raise
        finally:
            answer.ended()


def drop_false_address(scope: Scope) -> None:
    """Forget the client's address if it is none: a proxy may have passed on any text as `X-Forwarded-For`."""
    client = scope.get("client")
    if client is not None and not (len(client[0]) <= _LONGEST_ADDRESS and _is_address(client[0])):
        scope["client"] = None


@lru_cache(maxsize=8192)
def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # behind it may be anything


class ResponseObserver:
    """Observes the response of one request until it begins."""

    __slots__ = ("_access", "_began", "_scope", "_send", "_span", "_started", "id")

    def __init__(
        self, access: AccessLogMiddleware, scope: Scope, send: Send, id: str, span: RequestSpan | None
    ) -> None:
        self._access, self._scope, self._send, self.id, self._span = access, scope, send, id, span
        self._began = time.perf_counter()
        self._started = False

    async def send(self, message: Message) -> None:
        """Pass a message on. The first one gets the request's id as a header."""
        if not self._started:
            message = self._start(message)
        await self._send(message)

    def ended(self) -> None:
        """Record the request as unanswered if it got no response."""
        if not self._started:
            self._record(_NOT_STARTED, ())
        if self._span is not None:
            self._span.left()

    def _start(self, message: Message) -> Message:
        headers = message.get("headers") or ()
        self._record(_status(message, self._scope), headers)
        if message["type"] == "websocket.close":
            return message
        return {**message, "headers": [*headers, (b"x-request-id", self.id.encode())]}

    def _record(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._started = True
        scope, access = self._scope, self._access
        took_s = time.perf_counter() - self._began
        method = scope.get("method", "GET")
        route = getattr(scope.get("route"), "path", "other")
        rejected = scope["state"].get("rejected")
        access.tally.requests.add(method if method in _METHODS else "other", route, f"{status // 100}xx", took_s)
        if rejected is not None:
            access.tally.problems[rejected] += 1
        if self._span is not None:
            self._span.answered(method, route, status, _connection(headers))
        if log.isEnabledFor(access.level):
            path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
            client = (scope.get("client") or ("",))[0]
            main_fields = {
                "method": method,
                "path": path,
                "status": status,
                "ms": round(1000 * took_s, 1),
                "client": client,
            }
            other_fields = {"route": route, "request": self.id, "rejected": rejected, "principal": _principal(scope)}
            other_fields["connection"] = _connection(headers)
            fields = main_fields | {name: value for name, value in other_fields.items() if value}
            log.log(access.level, "%s %s %d after %.1f ms, for %s", *main_fields.values(), extra=fields)


def _status(message: Message, scope: Scope) -> int:
    if message["type"] == "websocket.accept":  # one that is rejected is accepted too, to be told why
        rejected: str | None = scope["state"].get("rejected")
        return 101 if rejected is None else STATUS_OF_CODE[rejected]
    if message["type"] == "websocket.close":
        return 403
    status: int = message["status"]
    return status


def _connection(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return dict(headers).get(CONNECTION_HEADER, b"").decode()


def _given_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _SANE_ID.fullmatch(value) else ""
    return ""


def _principal(scope: Scope) -> str:
    return getattr(scope["state"].get("principal"), "name", "")
