"""Reads a caller's token from `Authorization` (RFC 6750), or from a cookie that scripts can't read."""

from collections.abc import Collection

from starlette.requests import HTTPConnection

from progress_broker.errors import Unauthenticated
from progress_server.http.origins import RequestOrigin, request_origin

MAX_TOKEN = 8192
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def bearer(connection: HTTPConnection) -> str | None:
    """Return the token in the `Authorization` header, or None without that header; raise `Unauthenticated` for a scheme
    other than Bearer."""
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the Authorization header has no bearer token")
    return checked_length(token.strip())


def bearer_or_cookie(connection: HTTPConnection, name: str, trusted_origins: Collection[str]) -> str | None:
    """Return the token in the `Authorization` header, else the one in the cookie `name`, unless `name` is empty; else
    None."""
    token = bearer(connection)
    return from_cookie(connection, name, trusted_origins) if token is None and name else token


def from_cookie(connection: HTTPConnection, name: str, trusted_origins: Collection[str]) -> str | None:
    """Return the token in a cookie, or None; raise `Unauthenticated` if another site's page may have sent the request.

    A browser sends cookies with every request, whichever page caused it. So a request that changes something must come
    from our own pages or those of trusted origins; and so must a WebSocket, whose messages any page could read.
    """
    token = connection.cookies.get(name)
    if token is None:
        return None
    if not is_same_origin_request(connection, trusted_origins):
        raise Unauthenticated("the token is in a cookie, and a page of another site may have sent the request")
    return checked_length(token)


def is_same_origin_request(connection: HTTPConnection, trusted_origins: Collection[str]) -> bool:
    """Return whether the request changes nothing, or comes from our own pages or from a trusted origin."""
    reads = connection.scope["type"] == "http" and connection.scope["method"] in _SAFE
    return reads or request_origin(connection.headers, trusted_origins) is RequestOrigin.OURS


def checked_length(token: str) -> str:
    """Return the token; raise `Unauthenticated` if it is longer than any real token."""
    if len(token) > MAX_TOKEN:
        raise Unauthenticated(f"the token is longer than {MAX_TOKEN} bytes")
    return token
