"""The API's description: what each call may answer, refusals included (OpenAPI)."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from progress_server.http.problems import STATUS_OF_CODE

_MEANING = {
    400: "what came is no HTTP, or not enough of it",
    401: "who calls has not proved who they are",
    403: "who calls may not do that",
    404: "there is no such operation, or none that may be seen",
    405: "the method is not for this path",
    408: "the request came too slowly",
    409: "its state does not allow it",
    410: "it was deleted",
    413: "it is over a limit",
    414: "the URL is too long",
    421: "the request is for another host",
    422: "the input is wrong; `field` names the part",
    429: "too much at a time",
    431: "the headers are too long",
    500: "something broke here, and was logged",
    503: "not now; `Retry-After` says when to try again",
    507: "the store is full",
}

_ANYWHERE = ("misdirected", "uri-too-long", "head-too-large", "internal")
_UNDER_V1 = ("invalid", "unauthenticated", "forbidden", "rate-limited", "storage-unavailable")
_OF_ONE = ("not-found", "gone")
_CHANGING = ("too-large", "request-timeout", "storage-full")

_PROBLEM = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "a stable code"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what happened, why, and what to do"},
        "field": {"type": "string", "description": "the part of the input that is wrong"},
    },
    "required": ["type", "title", "status", "detail"],
}

Responses = dict[int | str, dict[str, Any]]


def refused(*codes: str) -> Responses:
    """Return the responses of a call that may be refused with these codes."""
    named: dict[int, list[str]] = {}
    for code in codes:
        named.setdefault(STATUS_OF_CODE[code], []).append(f"`{code}`")
    return {status: _response(status, names) for status, names in named.items()}


def describe(app: FastAPI) -> None:
    """Let an app's description tell, beside what each call says of itself, the refusals any of its kind may meet."""
    plain: Callable[[], dict[str, Any]] = app.openapi

    def described() -> dict[str, Any]:
        told = app.openapi_schema is not None
        document = plain()
        if not told:
            _complete(document)
        return document

    app.openapi = described  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            responses = call["responses"]
            for status, response in refused(*_codes_of(path, method)).items():
                if str(status) not in responses or "application/json" in responses[str(status)].get("content", {}):
                    responses[str(status)] = response
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # what FastAPI would answer
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
            "Retry-After": {"description": "seconds, with jitter", "schema": {"type": "integer", "minimum": 0}}
        }
    return response
