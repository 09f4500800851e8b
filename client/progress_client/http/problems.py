"""What a rejection over HTTP means: the error of the problem document, or of the status where there is none."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from progress_broker.errors import (
    LANE_AWAY,
    AtCapacity,
    BrokerError,
    Forbidden,
    InvalidInput,
    LaneAway,
    NotFound,
    RateLimited,
    RequestTimeout,
    ServerUnavailable,
    SetupError,
    TooLarge,
    Unauthenticated,
    rejection,
)

T = TypeVar("T")

_WITHOUT_PROBLEM: dict[int, type[BrokerError]] = {
    401: Unauthenticated,
    403: Forbidden,
    408: RequestTimeout,
    413: TooLarge,
    429: RateLimited,
    503: AtCapacity,
}
"""Statuses that proxies answer by themselves. Any other one says that there is no server of ours at the address."""

PATH = "path"
"""The `field` of a rejection for a path that a server does not have."""

_OF_SETUP = frozenset({"misdirected", "upgrade-required", "method-not-allowed"})
"""Codes that say that the address is wrong, or the server of another version."""


def error_of(url: str, status: int, headers: Mapping[str, str], body: bytes) -> BrokerError:
    """Return the error for a response whose status is not 2xx. `url` names the server in texts."""
    retry_s = _retry_s(headers.get("retry-after", ""))
    problem = _problem(headers, body)
    if problem is None:
        return _without_problem(url, status, headers, retry_s)
    code, detail, field = (problem.get(name) for name in ("type", "detail", "field"))
    if code == NotFound.code and field == PATH:
        return SetupError(f"{url} is a progress server without such a path ({detail}): {_advice(url)}")
    error = _unauthenticated(url) if code == Unauthenticated.code else _error(str(code), str(detail or code), status)
    if problem.get("reason") == LANE_AWAY:
        error = LaneAway(error.detail)
    error.field = field if isinstance(field, str) else None
    error.retry_s = retry_s
    return error


def _advice(url: str) -> str:
    if "/v1" in url:
        return "remove /v1 and what follows it from the end of PROGRESS_URL"
    return "is the path in PROGRESS_URL right, and the server no older than this program?"


def _unauthenticated(url: str) -> Unauthenticated:
    return Unauthenticated(
        f"the server at {url} rejected the credentials: set PROGRESS_TOKEN or PROGRESS_TOKEN_FILE to an API key or"
        " token that it accepts"
    )


def _problem(headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
    if not headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return problem if isinstance(problem, dict) else None


def _error(code: str, detail: str, status: int) -> BrokerError:
    if code in _OF_SETUP:
        return SetupError(detail)
    try:
        return rejection(code, detail)
    except KeyError:  # a code of HTTP's own, or of a later release
        return InvalidInput(detail) if status < 500 else BrokerError(detail)


def _without_problem(url: str, status: int, headers: Mapping[str, str], retry_s: float | None) -> BrokerError:
    if status == 407:
        return ServerUnavailable(
            f"the HTTP proxy before {url} asks for credentials: set HTTP_PROXY or HTTPS_PROXY to"
            " http://user:password@host:port"
        )
    if status in _WITHOUT_PROBLEM:
        return _WITHOUT_PROBLEM[status](
            f"{url} answered {status}, as a proxy before a progress server does", retry_s=retry_s
        )
    if 300 <= status < 400:
        place = headers.get("location", "another place")
        return SetupError(f"{url} redirects to {place}: set PROGRESS_URL to where the server is")
    return ServerUnavailable(
        f"{url} answered {status}, as no progress server does: is PROGRESS_URL right, with its path?", retry_s=retry_s
    )


def read_answer(url: str, body: bytes, read: Callable[[Any], T]) -> T:
    """Return what `read` makes of the JSON of a response whose status is 2xx.

    Raises `ServerUnavailable` if it is not what a progress server answers: then another one has answered.
    """
    try:
        return read(orjson.loads(body))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ServerUnavailable(
            f"{url} answered as no progress server does, with {body[:80]!r}: is PROGRESS_URL right, with its path?"
        ) from None


def _retry_s(text: str) -> float | None:
    return float(text) if text.isdecimal() and text.isascii() else None
