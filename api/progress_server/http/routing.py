"""What the framework's routing leaves out: HEAD for each GET, `Allow` with all methods of a path (RFC 9110, 9.1),
redirects to a path without a slash too many, or with one that is missing, and a short way to the busiest endpoint."""

import re
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import quote

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from progress_broker.model.operation import OPERATION_ID
from progress_server.http.paths import path_of

_SAFE = "/~:@!$&'()*+,;="
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class DirectRoute:
    """A route that calls the endpoint of one operation without FastAPI's layers, which are a third of a stream's
    handshake (`bench/storm.py`).

    FastAPI has a route for the same path, too. It describes the call, and rejects an id that is not valid, which this
    route does not match.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[[str, Request], Awaitable[Response]],
        methods: Iterable[str] = ("GET", "HEAD"),
    ) -> None:
        self._methods = frozenset(methods)
        before, _, after = path.partition("{id}")
        self.path, self._endpoint = path, endpoint
        self._pattern = re.compile(f"{re.escape(before)}({OPERATION_ID}){re.escape(after)}")

    def id_in(self, scope: Scope) -> str | None:
        """Return the operation's id of a request for this route; None of any other, or if the id is not valid."""
        if scope["type"] != "http" or scope["method"] not in self._methods:
            return None
        found = self._pattern.fullmatch(path_of(scope))
        return None if found is None else found[1]

    async def answer(self, id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        response = await self._endpoint(id, Request(scope, receive, send))
        await response(scope, receive, send)


def answer_heads(router: APIRouter) -> None:
    """Add a HEAD route for each GET route of a router that has none of its own."""
    calls = [(route, route.methods or set()) for route in router.routes if isinstance(route, APIRoute)]
    answered = {route.path for route, methods in calls if "HEAD" in methods}
    for route, methods in calls:
        if "GET" in methods and route.path not in answered:
            router.add_api_route(
                route.path.removeprefix(router.prefix),
                route.endpoint,
                methods=["HEAD"],
                include_in_schema=False,  # HEAD follows from GET, and FastAPI would give both the same operation id
                response_model=None,
                dependencies=[it for it in route.dependencies if it not in router.dependencies],
            )


def methods_of(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods that the path of a request supports."""
    return [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]


def redirect_slashes(app: FastAPI) -> None:
    """Let an app's redirects be relative. The framework's own are absolute: any `Host` header says where they lead."""
    router = app.router
    router.redirect_slashes = False
    not_found = router.default

    async def redirect(scope: Scope, receive: Receive, send: Send) -> None:
        location = _location(app, scope) if scope["type"] == "http" else None
        if location is None:
            await not_found(scope, receive, send)
        else:
            await RedirectResponse(location)(scope, receive, send)

    router.default = redirect


def _location(app: FastAPI, scope: Scope) -> str | None:
    path: str = scope["path"]
    other = path.rstrip("/") if path.endswith("/") else f"{path}/"
    meant = {**scope, "path": other}
    if other.startswith("//") or not any(route.matches(meant)[0] is not Match.NONE for route in app.router.routes):
        return None
    query: bytes = scope["query_string"]
    return quote(other, _SAFE) + (f"?{query.decode('latin-1')}" if query else "")
