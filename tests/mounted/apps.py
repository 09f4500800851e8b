"""Apps of others, with the server mounted in them. Servers import them by name, so they are configured by the
environment: `MIDDLEWARE` names the middleware around the app."""

import os
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from progress_broker.settings import Settings
from progress_server import Principal, Progress


async def add_header(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["X-Outer"] = "1"
    return response


MIDDLEWARE: dict[str, Sequence[Middleware]] = {
    "none": [],
    "base": [Middleware(BaseHTTPMiddleware, dispatch=add_header)],
    "gzip": [Middleware(GZipMiddleware, minimum_size=1)],
    "cors": [Middleware(CORSMiddleware, allow_origins=["http://page.example"], allow_credentials=True)],
}
MIDDLEWARE |= {"all": [it for each in MIDDLEWARE.values() for it in each]}


async def token(x_token: Annotated[str | None, Header()] = None) -> str | None:
    return x_token


async def current_user(request: Request, token: Annotated[str | None, Depends(token)]) -> Principal | str | None:
    """What an app has: a dependency with a dependency, which looks at the app's own state."""
    if token == "unpaid":
        raise HTTPException(402, "pay first", {"X-Price": "1"})
    users: dict[str, Principal | str] = request.app.state.users
    return users.get(token or "")


def make_app(settings: Settings | None = None, middleware: str = "none") -> FastAPI:
    """Return an app whose user alice has the token `a`, and bob `b`."""
    progress = Progress(authenticate=current_user, settings=settings)
    app = FastAPI(lifespan=progress.lifespan, middleware=MIDDLEWARE[middleware])
    app.state.users = {"a": "alice", "b": Principal("bob")}
    app.state.progress = progress
    app.mount("/progress", progress.app)

    @app.post("/start/{id}")
    async def start(id: str) -> str:
        return (await progress.operations.create(id=id, kind="import", owner="alice")).id

    @app.post("/say/{id}/{text}")
    async def say(id: str, text: str) -> int:
        return (await progress.operations.publish(id, "log", {"message": text})).events

    return app


def app() -> FastAPI:
    return make_app(middleware=os.environ.get("MIDDLEWARE", "none"))
