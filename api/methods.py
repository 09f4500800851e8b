"""HEAD wherever there is GET (RFC 9110, 9.1): the server leaves out the body."""

from fastapi import APIRouter
from fastapi.routing import APIRoute


def answer_heads(router: APIRouter) -> None:
    """Let each of a router's calls that answers GET answer HEAD, unless it sees to that itself."""
    calls = [(route, route.methods or set()) for route in router.routes if isinstance(route, APIRoute)]
    answered = {route.path for route, methods in calls if "HEAD" in methods}
    for route, methods in calls:
        if "GET" in methods and route.path not in answered:
            router.add_api_route(
                route.path.removeprefix(router.prefix),
                route.endpoint,
                methods=["HEAD"],
                include_in_schema=False,  # it is understood, and FastAPI would give both the same name
                response_model=None,
                dependencies=[it for it in route.dependencies if it not in router.dependencies],
            )
