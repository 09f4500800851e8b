"""Principals without credentials, for tests of the code after authentication."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_server.limits.middleware import LimitsMiddleware


class Named:
    """Middleware that replaces authentication: it believes the name that a caller gives."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            name = dict(scope["headers"]).get(b"x-principal", b"").decode()
            found: Any = scope.setdefault("state", {}).get("principal")
            scope["state"]["principal"] = SimpleNamespace(name=name) if found is None else replace(found, name=name)
        await self._app(scope, receive, send)


def name_callers(app: FastAPI) -> FastAPI:
    """Set the principal of callers before the limits read it."""
    at = next(i for i, it in enumerate(app.user_middleware) if it.cls is LimitsMiddleware)
    app.user_middleware.insert(at, Middleware(Named))
    return app
