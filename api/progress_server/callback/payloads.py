"""Questions: what a back end is told of who comes. What it is not told, it can't decide by."""

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
from progress_server.auth.credentials import is_meant, sized
from progress_server.http.paths import class_of, operation_in

HEADERS = ("authorization", "cookie", "origin", "user-agent")
"""What is handed on of a request's headers, as it was sent."""

_OURS = frozenset({"ticket"})  # what a query may hold that is for us alone
_KEY = secrets.token_bytes(32)  # so that what is kept of credentials is of no use anywhere else


def new_connection() -> str:
    """Return an id for a connection. Ids sort by when they were made."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


@dataclass(frozen=True, slots=True)
class Opening:
    """A connection that wants to be opened: a stream or a WebSocket."""

    connection: str
    url: str
    method: str
    operation: str | None
    """The operation it is of; None where it is of many."""
    client: str | None
    principal: str | None

    def ended(self, reason: str, lasted_s: float) -> bytes:
        """Return what is told when it is no more."""
        return orjson.dumps(
            {"action": "disconnect", "connection": self.connection, "url": self.url, "operation": self.operation}
            | {"principal": self.principal, "client": self.client, "reason": reason, "lasted_s": round(lasted_s, 3)}
        )


@dataclass(frozen=True, slots=True)
class Who:
    """Who calls, as far as a request tells."""

    client: str | None
    headers: dict[str, str] = field(repr=False)
    principal: str | None = None
    """The name that a proof of ours told, such as a ticket's."""

    def opens(self, opening: Opening) -> bytes:
        """Return the question whether a connection may be opened."""
        told: dict[str, Any] = {"action": "connect", "connection": opening.connection, "url": opening.url}
        return orjson.dumps(told | {"method": opening.method, "operation": opening.operation} | self._told())

    def calls(self) -> bytes:
        """Return the question who calls, and what they may do: never which call, as the answer serves others too."""
        return orjson.dumps({"action": "call"} | self._told())

    def key(self) -> bytes:
        """Return what is the same for those of whom the same is told."""
        return blake2b(orjson.dumps(self._told(), option=orjson.OPT_SORT_KEYS), key=_KEY).digest()

    def _told(self) -> dict[str, Any]:
        return {"principal": self.principal, "client": self.client, "headers": self.headers}


def who_in(
    connection: HTTPConnection, friends: Collection[str] = (), principal: str | None = None, token_cookie: str = ""
) -> Who:
    """Return who calls; raise `Unauthenticated` if another site may have made a browser call in their name.

    A token that the browser keeps for a page (`POST /v1/session`) is told as if the page had sent it.
    """
    headers = connection.headers
    told = {name: ", ".join(headers.getlist(name)) for name in HEADERS if name in headers}
    if "cookie" in told and not is_meant(connection, friends):
        if "authorization" not in told:
            raise Unauthenticated("a cookie came with a call that is not known to come from our own pages")
        del told["cookie"]
    if "authorization" not in told and (token := connection.cookies.get(token_cookie)):
        told["authorization"] = f"Bearer {sized(token)}"
    return Who(connection.client.host if connection.client else None, told, principal)


def opening_in(scope: Scope, principal: str | None = None) -> Opening | None:
    """Return the connection that a request wants to be opened, or None if it is a plain call."""
    request = class_of(scope)
    if not request.streams:
        return None
    client = scope.get("client")
    return Opening(
        connection=new_connection(),
        url=_url(scope),
        method=scope.get("method", "GET"),
        operation=operation_in(scope) if request.of_one else None,
        client=client[0] if client else None,
        principal=principal,
    )


def _url(scope: Scope) -> str:
    """Return the path and the query, without what is for us alone."""
    parts = scope["query_string"].decode("latin-1").split("&")
    query = "&".join(part for part in parts if unquote_plus(part.partition("=")[0]) not in _OURS)
    return f"{scope['path']}?{query}" if query else str(scope["path"])
