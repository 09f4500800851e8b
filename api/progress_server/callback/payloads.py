"""The bodies of requests to the back end: what it is told about a caller."""

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote_plus

import orjson
from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.errors import Unauthenticated
from progress_server.auth.credentials import checked_length, is_same_origin_request
from progress_server.http.paths import class_of, operation_in

HEADERS = ("authorization", "cookie", "origin", "user-agent")
"""The headers of a request that are passed on, as they were sent."""

_SEPARATORS = {"cookie": "; "}  # RFC 6265, 5.4: it is no list with commas

_OURS = frozenset({"ticket"})  # parameters of a query that are for us alone
_KEY = secrets.token_bytes(32)  # so that the cached hashes of credentials are of no use elsewhere


def new_connection() -> str:
    """Return an id for a connection. Ids sort by when they were made."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A connection that is to be opened: a stream or a WebSocket."""

    connection: str
    url: str
    method: str
    operation: str | None
    """The operation to follow; None for a stream of many operations."""
    client: str | None
    principal: str | None

    def ended(self, reason: str, lasted_s: float) -> bytes:
        """Return the body of the notice that this connection has ended."""
        return orjson.dumps(
            {"action": "disconnect", "connection": self.connection, "url": self.url, "operation": self.operation}
            | {"principal": self.principal, "client": self.client, "reason": reason, "lasted_s": round(lasted_s, 3)}
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller, as described by its request."""

    client: str | None
    headers: dict[str, str] = field(repr=False)
    principal: str | None = None
    """The principal of credentials that we checked ourselves, such as a ticket."""

    def opens(self, request: ConnectRequest) -> bytes:
        """Return the body of the request that asks whether this caller may open a connection."""
        passed_on: dict[str, Any] = {"action": "connect", "connection": request.connection, "url": request.url}
        return orjson.dumps(passed_on | {"method": request.method, "operation": request.operation} | self._described())

    def calls(self) -> bytes:
        """Return the body of the request that asks who the caller is. It has no URL: the answer is used for other
        calls, too."""
        return orjson.dumps({"action": "call"} | self._described())

    def key(self) -> bytes:
        """Return a key that is equal for callers with the same data."""
        return blake2b(orjson.dumps(self._described(), option=orjson.OPT_SORT_KEYS), key=_KEY).digest()

    def _described(self) -> dict[str, Any]:
        return {"principal": self.principal, "client": self.client, "headers": self.headers}


def caller_in(
    connection: HTTPConnection,
    trusted_origins: Collection[str] = (),
    principal: str | None = None,
    token_cookie: str = "",
) -> Caller:
    """Return the caller; raise `Unauthenticated` if a page of another site may have sent a request with a cookie.

    A token that the browser keeps in a cookie (`POST /v1/session`) is passed on as if it came in `Authorization`.
    """
    headers = connection.headers
    passed_on = {name: _SEPARATORS.get(name, ", ").join(headers.getlist(name)) for name in HEADERS if name in headers}
    if "cookie" in passed_on and not is_same_origin_request(connection, trusted_origins):
        if "authorization" not in passed_on:
            raise Unauthenticated("the token is in a cookie, and a page of another site may have sent the request")
        del passed_on["cookie"]
    if "authorization" not in passed_on and (token := connection.cookies.get(token_cookie)):
        passed_on["authorization"] = f"Bearer {checked_length(token)}"
    return Caller(connection.client.host if connection.client else None, passed_on, principal)


def connect_request_in(scope: Scope, principal: str | None = None) -> ConnectRequest | None:
    """Return the connection that a request asks to open, or None for an ordinary request."""
    request = class_of(scope)
    if not request.streams:
        return None
    client = scope.get("client")
    return ConnectRequest(
        connection=new_connection(),
        url=_url(scope),
        method=scope.get("method", "GET"),
        operation=operation_in(scope) if request.of_one else None,
        client=client[0] if client else None,
        principal=principal,
    )


def _url(scope: Scope) -> str:
    """Return the path and the query, without the parameters that are for us alone."""
    parts = scope["query_string"].decode("latin-1").split("&")
    query = "&".join(part for part in parts if unquote_plus(part.partition("=")[0]) not in _OURS)
    return f"{scope['path']}?{query}" if query else str(scope["path"])
