"""The same-origin rule: whose page it is that makes a browser call, as browsers say and nobody else does (RFC 6454).

CORS keeps a page from reading what is not for it, but not from making calls in which the browser's user speaks.
"""

from collections.abc import Collection
from enum import Enum

from starlette.datastructures import Headers

_PORTS = {"http": ":80", "https": ":443"}


class Caller(Enum):
    """Who makes a call, as far as its headers tell."""

    OURS = "a page of this origin, or one that is on the list"
    FOREIGN = "a page of another origin"
    USER = "a browser's user, as by a bookmark"
    NO_BROWSER = "what says nothing of pages"


def caller_of(headers: Headers, friends: Collection[str]) -> Caller:
    """Return who makes a call. Newer browsers say so in words of their own (Fetch Metadata), the others by the origin.

    The origins of `friends` are those of pages that may do what ours may.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin in friends:
        return Caller.OURS
    if site is not None:
        return {"same-origin": Caller.OURS, "none": Caller.USER}.get(site, Caller.FOREIGN)
    if origin is None:
        return Caller.NO_BROWSER
    return Caller.OURS if allowed(origin, headers.get("host"), friends) else Caller.FOREIGN


def may_connect(headers: Headers, friends: Collection[str]) -> bool:
    """Return whether a WebSocket may be opened. CORS is not for these, so the origin alone decides."""
    return allowed(headers.get("origin"), headers.get("host"), friends)


def allowed(origin: str | None, host: str | None, allow_list: Collection[str]) -> bool:
    """Return whether a page of this origin may talk to us; None, from what is no browser's page, may.

    A page from where the request went, its `host`, is ours. Any other has to be on the list, word for word: a `*` there
    allows nobody here, as a browser sends its cookies along, whoever asks. The scheme is not compared with ours, which
    a proxy that ends TLS hides from us.
    """
    if origin is None or origin in allow_list:
        return True
    scheme, separator, authority = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if not (separator and authority and host and port):  # `null`, an extension's page, a file's
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)
