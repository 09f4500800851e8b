"""The OpenAPI description: it lists the possible responses of each call, including errors."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from progress_server.http.problems import STATUS_OF_CODE

_MEANING = {
    400: "Not a valid or complete HTTP request.",
    401: "Missing, expired or invalid credentials.",
    403: "The caller does not have this permission.",
    404: "No such operation. Callers without read access get the same response.",
    405: "The path does not support this method; see `Allow`.",
    426: "This path serves WebSockets only; see `Upgrade`.",
    408: "The request arrived too slowly.",
    409: "The state of the operation does not allow this.",
    410: "The operation was deleted.",
    413: "The request exceeds a size limit.",
    414: "The URL is too long.",
    421: "The `Host` header does not name this server.",
    422: "The input is invalid; `field` names the part.",
    429: "A rate limit or the stream limit is exceeded; `Retry-After` says when to retry.",
    431: "The headers are too large.",
    500: "Internal error. Details are in the server's log.",
    503: "Temporarily unavailable; `Retry-After` says when to retry.",
    507: "Redis is full and rejects writes.",
}

_ANYWHERE = ("misdirected", "uri-too-long", "head-too-large", "internal")
_UNDER_V1 = ("invalid", "unauthenticated", "forbidden", "rate-limited", "storage-unavailable")
_OF_ONE = ("not-found", "gone")
_CHANGING = ("too-large", "request-timeout", "storage-full")

_PROBLEM = {
    "type": "object",
    "description": "Why a request was rejected (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "The error code. Codes are stable: clients can rely on them."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, why, and what to do."},
        "field": {"type": "string", "description": "The part of the input that is invalid."},
    },
    "required": ["type", "title", "status", "detail"],
}

Responses = dict[int | str, dict[str, Any]]


def rejections(*codes: str) -> Responses:
    """Return the OpenAPI responses of a call that may be rejected with these codes."""
    named: dict[int, list[str]] = {}
    for code in codes:
        named.setdefault(STATUS_OF_CODE[code], []).append(f"`{code}`")
    return {status: _response(status, names) for status, names in named.items()}


def describe(app: FastAPI) -> None:
    """Add to an app's OpenAPI document the errors that apply to every call of a kind.

    Each route declares only the errors that are its own.
    """
    plain: Callable[[], dict[str, Any]] = app.openapi

    def described() -> dict[str, Any]:
        is_built = app.openapi_schema is not None
        document = plain()
        if not is_built:
            _complete(document)
        return document

    app.openapi = described  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            responses = call["responses"]
            for status, response in rejections(*_codes_of(path, method)).items():
                if str(status) not in responses or "application/json" in responses[str(status)].get("content", {}):
                    responses[str(status)] = response
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own error models, which are never sent
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM


def _codes_of(path: str, method: str) -> list[str]:
    codes = [*_ANYWHERE]
    if path.startswith("/v1/"):
        codes += _UNDER_V1
        codes += _OF_ONE if "{id}" in path else ()
        codes += _CHANGING if method != "get" else ()
    elif path == "/metrics":
        codes += ("unauthenticated", "forbidden", "storage-unavailable")
    return codes


def _response(status: int, names: list[str]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": f"{_MEANING[status]} ({', '.join(names)})",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before the next attempt, with jitter.",
                "schema": {"type": "integer", "minimum": 0},
            }
        }
    return response
