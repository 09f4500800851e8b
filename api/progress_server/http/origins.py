"""The same-origin check (RFC 6454): which page made the browser send a request, according to the request's headers.

CORS alone is not enough. It stops a page from reading responses, but not from sending requests with the user's cookies.
"""

from collections.abc import Collection
from enum import Enum

from starlette.datastructures import Headers

_PORTS = {"http": ":80", "https": ":443"}


class RequestOrigin(Enum):
    """Who sent a request, according to its headers."""

    OURS = "a page of this origin, or of an origin on the allow list"
    FOREIGN = "a page of another origin"
    USER = "the user of a browser, for example through a bookmark"
    NO_BROWSER = "a client that is not a browser"


def request_origin(headers: Headers, trusted_origins: Collection[str]) -> RequestOrigin:
    """Return who sent a request. Newer browsers say it by Fetch Metadata headers, older ones by `Origin`.

    Pages of the origins in `trusted_origins` may do what our own pages may.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin in trusted_origins:
        return RequestOrigin.OURS
    if site is not None:
        return {"same-origin": RequestOrigin.OURS, "none": RequestOrigin.USER}.get(site, RequestOrigin.FOREIGN)
    if origin is None:
        return RequestOrigin.NO_BROWSER
    return RequestOrigin.OURS if allowed(origin, headers.get("host"), trusted_origins) else RequestOrigin.FOREIGN


def may_connect(headers: Headers, trusted_origins: Collection[str]) -> bool:
    """Return whether a WebSocket may be opened. CORS does not cover WebSockets, so only the origin decides."""
    return allowed(headers.get("origin"), headers.get("host"), trusted_origins)


def allowed(origin: str | None, host: str | None, allow_list: Collection[str]) -> bool:
    """Return whether a page of this origin may call us. None, from a client that is not a browser page, is allowed.

    If the origin equals the `host` of the request, the page is ours. Any other origin must be on the list, literally.
    A `*` on the list allows no origin here, because browsers attach their cookies to requests of any page. The scheme
    is not compared, because a proxy that terminates TLS hides ours.
    """
    if origin is None or origin in allow_list:
        return True
    scheme, separator, authority = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if not (
        separator and authority and host and port
    ):  # `null`, as sent for a local file, or an origin without host, such as an extension's
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)
