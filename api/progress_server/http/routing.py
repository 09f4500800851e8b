"""What the framework's routing leaves out: HEAD for each GET, `Allow` with all methods of a path (RFC 9110, 9.1), and
redirects to a path without a slash too many, or with one that is missing."""

from urllib.parse import quote

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

_SAFE = "/~:@!$&'()*+,;="
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
