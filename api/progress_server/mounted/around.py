"""The server beside an app that can't mount it: one ASGI app that serves both."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send


class Around:
    """An ASGI app that serves `inner` under a path, and another app everywhere else.

    The other app is not sent the lifespan, which Django, for one, rejects.
    """

    def __init__(
        self, inner: ASGIApp, lifespan: Callable[[], AbstractAsyncContextManager[None]], app: ASGIApp, at: str
    ) -> None:
        routes = [Route(at, _with_slash), Mount(at, inner), Mount("", app)]
        self._router = Router(routes, redirect_slashes=False, lifespan=lambda _: lifespan())
        self._lifespan = lifespan
        self._has_lifespan = False
        self._resources = AsyncExitStack()
        self._starting: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            self._has_lifespan = True
        elif not self._has_lifespan:
            await self._started()
        await self._router(scope, receive, send)

    async def _started(self) -> None:
        if self._starting is None:
            self._starting = asyncio.create_task(self._resources.enter_async_context(self._lifespan()))
        await asyncio.shield(self._starting)


async def _with_slash(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.url.path}/")
