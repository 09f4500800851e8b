"""Principals without a proof, for tests of what comes after authentication."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_server.limits.middleware import LimitsMiddleware


class Named:
    """Behind authentication, which asked for nothing: a caller is who it says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            name = dict(scope["headers"]).get(b"x-principal", b"").decode()
            found: Any = scope.setdefault("state", {}).get("principal")
            scope["state"]["principal"] = SimpleNamespace(name=name) if found is None else replace(found, name=name)
        await self._app(scope, receive, send)


def name_callers(app: FastAPI) -> FastAPI:
    """Have callers named before limits look at who they are."""
    at = next(i for i, it in enumerate(app.user_middleware) if it.cls is LimitsMiddleware)
    app.user_middleware.insert(at, Middleware(Named))
    return app
