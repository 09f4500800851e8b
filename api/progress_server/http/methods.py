"""The methods of a path (RFC 9110, 9.1): HEAD for each GET, and the `Allow` header of a 405 response."""

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


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
