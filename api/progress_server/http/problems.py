"""Errors as problem details (RFC 9457): the only place that maps the broker's errors to HTTP statuses."""

import math
import random
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from progress_broker.errors import LANE_AWAY, RETRYABLE, BrokerError, InvalidInput, LaneAway, Unauthenticated
from progress_broker.model.validation import fault_in
from progress_server.http.routing import methods_of

STATUS_OF_CODE = {
    "not-found": 404,
    "gone": 410,
    "operation-exists": 409,
    "operation-running": 409,
    "operation-ended": 409,
    "fenced": 409,
    "gap": 409,
    "conflict": 409,
    "invalid": 422,
    "too-large": 413,
    "unauthenticated": 401,
    "forbidden": 403,
    "too-many-streams": 429,
    "rate-limited": 429,
    "bad-request": 400,
    "request-timeout": 408,
    "upgrade-required": 426,
    "uri-too-long": 414,
    "head-too-large": 431,
    "draining": 503,
    "at-capacity": 503,
    "authorizer-unavailable": 503,
    "storage-unavailable": 503,
    "storage-full": 507,
    "setup": 500,
    "internal": 500,
    "method-not-allowed": 405,
    "misdirected": 421,
}

CREDENTIALS_HINT = (
    "Missing, expired or invalid credentials."
    " Send `Authorization: Bearer <token>`, or `?ticket=` where tickets are accepted."
)

_CODE_OF_STATUS = {404: "not-found", 405: "method-not-allowed"}


def problem_body(code: str, detail: str, field: str | None) -> dict[str, Any]:
    """Return the members of a problem."""
    title = code.replace("-", " ").capitalize()
    body = {"type": code, "title": title, "status": STATUS_OF_CODE[code], "detail": detail}
    return body if field is None else body | {"field": field}


class ProblemResponse(Response):
    """An error response. It stores its code in the request's state, where the access log counts it."""

    def __init__(
        self, code: str, content: bytes, status: int, headers: dict[str, str], media_type: str | None = None
    ) -> None:
        super().__init__(content, status, headers, media_type)
        self._code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        scope.setdefault("state", {})["rejected"] = self._code
        await super().__call__(scope, receive, send)


class _Unanswered(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


unanswered = _Unanswered()
"""No response, because the client has left. The access log notes that; without a handler it would be an error."""


def problem(
    code: str, detail: str, *, field: str | None = None, retry_s: float | None = None, **members: object
) -> Response:
    """Return a problem response. Its `type` is the error code; `members` are added to the body."""
    body = problem_body(code, detail, field)
    headers = {"Retry-After": str(math.ceil(retry_s or random.uniform(0, 5)))} if code in RETRYABLE else {}
    return ProblemResponse(
        code, orjson.dumps(body | members), STATUS_OF_CODE[code], headers, "application/problem+json"
    )


def unauthenticated() -> Response:
    """Return the response to a caller without valid credentials.

    It never says why: the reason would help an attacker who guesses credentials.
    """
    answer = problem(Unauthenticated.code, CREDENTIALS_HINT)
    answer.headers.update({"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})
    return answer


def problem_of(fault: BrokerError) -> Response:
    """Return the response for one of the broker's errors."""
    if isinstance(fault, Unauthenticated):
        return unauthenticated()
    members = {"reason": LANE_AWAY} if isinstance(fault, LaneAway) else {}
    return problem(fault.code, fault.detail, field=fault.field, retry_s=fault.retry_s, **members)


def install(app: FastAPI) -> None:
    """Register error handlers, so that every error of an app is sent as a problem."""

    @app.exception_handler(BrokerError)
    async def rejected(_: Request, error: BrokerError) -> Response:
        return problem_of(error)

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        return unanswered

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        fault: dict[str, Any] = error.errors()[0]
        name = fault["loc"][1]  # of a parameter, after where it is: in the path, the query, the body
        bad = fault_in(fault | {"loc": fault["loc"][1:]}, {name: fault.get("input")})
        return problem(InvalidInput.code, bad.detail, field=bad.field)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        code = _CODE_OF_STATUS.get(error.status_code, "invalid")
        # `field` tells an unknown path from an unknown operation.
        field = "path" if error.status_code == 404 else None
        answer = problem(code, f"{request.method} {request.url.path}: {error.detail}", field=field)
        answer.headers.update(error.headers or {})
        if "allow" in answer.headers:  # the router lists the methods of only one of the path's routes
            answer.headers["allow"] = ", ".join(methods_of(app, request.scope))
        return answer

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:
        return problem("internal", "internal error; details are in the server's log")
