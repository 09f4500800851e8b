"""HEAD works wherever GET does, and a 405 response lists the supported methods."""

from typing import Any

import httpx

from tests.api.test_operations import OPS, create

PATHS = ("/livez", "/readyz", "/metrics", "/", "/docs", "/openapi.json", OPS, f"{OPS}/a", f"{OPS}/a/events")


async def test_it_says_what_get_would_without_the_body(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for path in PATHS:
        head, got = await http.head(path), await http.get(path)
        assert head.status_code == got.status_code, path
        assert head.content == b"", path
        assert set(head.headers) == set(got.headers), path
        assert head.headers.get("etag") == got.headers.get("etag")


async def test_that_of_what_is_not_there_is_404(http: httpx.AsyncClient) -> None:
    assert (await http.head(f"{OPS}/nowhere")).status_code == 404


def test_no_get_is_without_it(app: Any) -> None:
    heads = {route.path for route in _routes(app.routes) if "HEAD" in route.methods}
    assert set(PATHS[:7]) <= heads
    assert {route.path for route in _routes(app.routes) if "GET" in route.methods} <= heads


def _routes(routes: Any) -> list[Any]:
    """Return all routes, including those of included routers."""
    found = [route for route in routes if getattr(route, "methods", None)]
    inner = [route.original_router.routes for route in routes if hasattr(route, "original_router")]
    return found + [route for routes in inner for route in _routes(routes)]


async def test_what_is_rejected_is_told_what_is_not(http: httpx.AsyncClient) -> None:
    for path, methods in {
        OPS: "GET, HEAD, POST",
        f"{OPS}/a": "GET, HEAD, PATCH, DELETE",
        f"{OPS}/a/cancel": "POST",
    }.items():
        answer = await http.put(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)
