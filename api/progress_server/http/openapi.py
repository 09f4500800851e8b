"""The rejections of a call, as OpenAPI describes them."""

from typing import Any

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

Responses = dict[int | str, dict[str, Any]]


def rejections(*codes: str) -> Responses:
    """Return the OpenAPI responses of a call that may be rejected with these codes."""
    named: dict[int, list[str]] = {}
    for code in codes:
        named.setdefault(STATUS_OF_CODE[code], []).append(f"`{code}`")
    return {status: _response(status, names) for status, names in named.items()}


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
