"""Principals without a proof, for tests of what comes after authentication."""

from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send


class Named:
    """In authentication's place: a caller is who it says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            name = dict(scope["headers"]).get(b"x-principal", b"").decode()
            scope.setdefault("state", {})["principal"] = SimpleNamespace(name=name)
        await self._app(scope, receive, send)
