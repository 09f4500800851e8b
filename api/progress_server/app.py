"""The app factory: everything the HTTP edge is made of, put together once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import progress_web
from progress_broker.access.fact_cache import FactCache
from progress_broker.errors import BrokerError, SetupError
from progress_broker.hub import Hub
from progress_broker.limits.limiter import Limiter
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings, load_settings
from progress_server.auth.guard import Guard
from progress_server.auth.middleware import Authentication
from progress_server.callback.authenticator import Callback
from progress_server.callback.middleware import Doorstep, Visits
from progress_server.context import Context
from progress_server.http import problems
from progress_server.http.methods import answer_heads
from progress_server.http.openapi import describe
from progress_server.limits.admission import Admission
from progress_server.limits.middleware import LimitsMiddleware
from progress_server.middleware import security_headers
from progress_server.middleware.access_log import Access
from progress_server.middleware.stack import edged
from progress_server.middleware.startup import Starting, UntilStarted, log_wrong
from progress_server.observability.logs import redact_requests
from progress_server.observability.metrics import registry_of
from progress_server.routes import (
    health,
    multi_stream,
    operations,
    publish,
    revocations,
    session,
    stream,
    tickets,
)
from progress_server.routes import websocket as ws


class Pages(StaticFiles):
    """Static files with a page's headers: browsers ask whether they changed, so that no page mixes two releases."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file's response."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(security_headers.PAGE)
        return response


class App(FastAPI):
    """The app behind its edge, which holds for its error handlers too; around all that, what sees every request."""

    def __init__(self, settings: Settings, tally: Tally, **options: Any) -> None:
        super().__init__(**options)
        self.settings, self.tally = settings, tally

    def build_middleware_stack(self) -> ASGIApp:
        """Return what requests go through."""
        level = logging.INFO if self.settings.access_log else logging.DEBUG
        return Access(edged(super().build_middleware_stack(), self.settings), self.tally, level)


def create_app(
    settings: Settings | None = None,
    store: Store | None = None,
    *,
    away: BrokerError | None = None,
    wrong: Callable[[SetupError], None] = log_wrong,
) -> FastAPI:
    """Return the app. A store that is given is used and left open; without one the app opens its own.

    While Redis is away it serves what needs none. `away` says that it was just now, so that nothing waits for it;
    `wrong` is called when it answers, but can never be used.

    As an ASGI factory: `uvicorn --factory progress_server.app:create_app`, with settings from the environment.
    """
    config = settings or load_settings()
    tally = Tally()
    callback = Callback(config, tally) if config.auth == "callback" else None
    guard = Guard(config) if callback is None else Guard(config, callback, callback.admit)
    limiter = Limiter(config, tally)
    redact_requests()

    async def begin(app: FastAPI, stack: AsyncExitStack) -> None:
        ours = store if store is not None else await stack.enter_async_context(await Store.reach(config))
        await stack.enter_async_context(limiter.shared(ours))
        notes = {} if callback is None else await stack.enter_async_context(callback.running(ours))
        hub = await stack.enter_async_context(Hub(ours, config, tally=tally))
        hub.notes |= notes
        reaper = await stack.enter_async_context(Reaper(ours))
        await stack.enter_async_context(guard.over(ours, hub))
        registry = registry_of(hub, reaper, processes=config.processes)
        with suppress(TimeoutError):  # it goes on by itself, and until then tells that it is not ready
            async with asyncio.timeout(config.redis_timeout_s):
                await hub.started()
        app.state.context = Context(config, ours, hub, registry, guard, FactCache(ours))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.starting = Starting(lambda stack: begin(app, stack), wrong, away)
        async with app.state.starting:
            yield

    app = App(
        config,
        tally,
        title="Progress broker",
        description="How long work is going: operations, and their events as server-sent events.",
        version="1",
        docs_url=None,  # its pages run a stranger's scripts in our origin; ours is at the same address
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        # Its own would put whole queries, with the tickets in them, into spans; ours are in
        # `api/progress_server/observability/tracing.py`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)
    _add_middleware(app, guard, limiter, callback)
    routers = (
        stream.router,
        multi_stream.router,
        ws.router,
        operations.router,
        publish.router,
        tickets.router,
        revocations.router,
        session.router,
        health.router,
    )
    for router in routers:  # streams, of which most are, first
        answer_heads(router)
        app.include_router(router)
    _mount_pages(app)
    describe(app)
    return app


def _add_middleware(app: App, guard: Guard, limiter: Limiter, callback: Callback | None) -> None:
    """Add what requests pass, from the inside out. Strangers take no places: those are had by who is somebody.

    But where a back end is asked who that is, places are what keeps a stampede from it.
    """
    app.add_middleware(LimitsMiddleware, limiter=limiter, tally=app.tally)
    if callback is None:
        app.add_middleware(Admission, rate=app.settings.handshakes_per_s, tally=app.tally)
    app.add_middleware(Authentication, guard=guard)
    if callback is not None:
        app.add_middleware(Visits)
        app.add_middleware(Admission, rate=app.settings.handshakes_per_s, tally=app.tally)
        app.add_middleware(Doorstep, threshold=callback.threshold, limiter=limiter, tally=app.tally)
    app.add_middleware(UntilStarted)


def _mount_pages(app: FastAPI) -> None:
    pages = progress_web.directory()

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def dashboard() -> Response:
        return FileResponse(pages / "dashboard" / "index.html", headers=security_headers.PAGE)

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def reference() -> Response:
        return FileResponse(pages / "reference" / "index.html", headers=security_headers.PAGE)

    for folder in ("client", "dashboard", "reference"):
        app.mount(f"/web/{folder}", Pages(directory=pages / folder), name=folder)
