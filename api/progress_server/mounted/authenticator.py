"""Authentication by code of the app: a FastAPI dependency, or any `async (connection) -> Principal | str | None`.

FastAPI calls the dependency, as the only one of a route that nothing else reaches. So what FastAPI documents about
dependencies holds here too: they may have dependencies of their own, be plain functions or generators, and be
replaced in tests by `app.dependency_overrides`. They are given the request as the app received it: `request.app`,
`request.state`, `request.session` and `request.user` are the app's. A WebSocket is shown to them as a GET request, and
no body is ever shown.
"""

import inspect
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message, Scope

from progress_broker.errors import Unauthenticated
from progress_server.auth.claims import NAME
from progress_server.auth.guard import RejectedByApp
from progress_server.auth.principal import Principal
from progress_server.context import OUTER

Authenticate = Callable[..., Any]
"""A FastAPI dependency that returns a `Principal`, a name, or None if the caller is not signed in."""

_ANSWER = "progress_broker.answer"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class AppAuthenticator:
    """Asks the app's dependency who a caller is."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._asked = _app_that_asks(authenticate)
        # Not the app itself, which would put itself into the scope as `request.app`.
        self._ask = self._asked.build_middleware_stack()

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal. Raise `Unauthenticated` if there is none, `RejectedByApp` for an `HTTPException`."""
        outer: Scope = connection.scope.get(OUTER, connection.scope)
        self._asked.dependency_overrides = getattr(outer.get("app"), "dependency_overrides", {})
        answers: list[object] = []
        scope = {**outer, _ANSWER: answers}
        if scope["type"] == "websocket":
            scope |= {"type": "http", "method": "GET", "scheme": scope.get("scheme", "ws").replace("ws", "http")}
        await self._ask(scope, _no_body, _nowhere)
        return _principal(answers[0] if answers else None)


def _app_that_asks(authenticate: Authenticate) -> FastAPI:
    """Return an app with one route, which stores the dependency's answer in the scope."""
    answered = Depends(_as_dependency(authenticate))
    app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.api_route("/{path:path}", methods=_METHODS)
    async def ask(request: Request, answer: Any = answered) -> Response:
        request.scope[_ANSWER].append(answer)
        return Response()

    @app.exception_handler(HTTPException)
    async def rejected(request: Request, error: HTTPException) -> Response:
        request.scope[_ANSWER].append(RejectedByApp(error.status_code, str(error.detail), error.headers or {}))
        return Response()

    @app.exception_handler(RequestValidationError)
    async def incomplete(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        request.scope[_ANSWER].append(Unauthenticated(f"`authenticate` could not be called: {where}: {fault['msg']}"))
        return Response()

    @app.exception_handler(WebSocketException)
    async def closed(request: Request, error: WebSocketException) -> Response:
        request.scope[_ANSWER].append(Unauthenticated(f"`authenticate` closed the WebSocket: {error.reason}"))
        return Response()

    return app


def _as_dependency(authenticate: Authenticate) -> Authenticate:
    """Return a function of one parameter without annotation as a dependency; FastAPI would take that for a query."""
    parameters = tuple(inspect.signature(authenticate).parameters.values())
    if len(parameters) != 1 or parameters[0].annotation is not inspect.Parameter.empty or "=" in str(parameters[0]):
        return authenticate

    async def dependency(connection: HTTPConnection) -> Any:
        answer = authenticate(connection)
        return await answer if inspect.isawaitable(answer) else answer

    return dependency


def _principal(answer: object) -> Principal:
    match answer:
        case Principal():
            return answer
        case BaseException():
            raise answer
        case None:
            raise Unauthenticated("`authenticate` found no signed-in caller")
        case str():
            try:
                return Principal(NAME.validate_python(answer))
            except ValidationError as error:
                raise Unauthenticated(
                    f"the name from `authenticate` is not valid: {error.errors()[0]['msg']}"
                ) from None
    raise TypeError(
        f"`authenticate` returned a {type(answer).__name__}: return a Principal, the name of one, or None. For a user"
        " object, pass a dependency that depends on yours and returns its name"
    )


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nowhere(message: Message) -> None:
    pass
