"""Where a caller's token stands: in `Authorization` (RFC 6750), or in a cookie that scripts can't read."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from broker.errors import Unauthenticated

MAX_TOKEN = 8192
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def bearer(connection: HTTPConnection) -> str | None:
    """Return the `Authorization` header's token, or None without one; raise `Unauthenticated` for another scheme."""
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the Authorization header holds no bearer token")
    return sized(token.strip())


def from_cookie(connection: HTTPConnection, name: str) -> str | None:
    """Return a cookie's token, or None without one; raise `Unauthenticated` for a call that another site may have made.

    A browser sends cookies along whoever made it call. So what changes something has to come from our own pages, and
    so has a WebSocket, whose answer any page could read.
    """
    token = connection.cookies.get(name)
    if token is None:
        return None
    reads = connection.scope["type"] == "http" and connection.scope["method"] in _SAFE
    if not reads and not from_our_pages(connection):
        raise Unauthenticated("a cookie came with a call that is not known to come from our own pages")
    return sized(token)


def from_our_pages(connection: HTTPConnection) -> bool:
    """Return whether a browser says that a page of this very origin makes the call."""
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(connection.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc.lower() == connection.headers.get("host", "").lower()


def sized(token: str) -> str:
    """Return a token; raise `Unauthenticated` if nobody would have made one so long."""
    if len(token) > MAX_TOKEN:
        raise Unauthenticated(f"the token is over {MAX_TOKEN} bytes")
    return token
