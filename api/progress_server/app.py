"""The app factory: everything the HTTP edge is made of, put together once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from progress_broker.access.fact_cache import FactCache
from progress_broker.errors import BrokerError, SetupError
from progress_broker.hub import Hub
from progress_broker.limits.limiter import Limiter
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings, load_settings
from progress_server.auth.guard import Guard
from progress_server.callback.authenticator import Callback
from progress_server.context import Context
from progress_server.http import problems
from progress_server.http.methods import answer_heads
from progress_server.http.openapi import describe
from progress_server.middleware.stack import ERRORS, stack
from progress_server.middleware.startup import Starting, log_wrong
from progress_server.observability.logs import redact_requests
from progress_server.observability.metrics import registry_of
from progress_server.routes import (
    health,
    history,
    operations,
    pages,
    publish,
    revocations,
    session,
    streams,
    tickets,
    websocket,
)
from progress_server.server.signals import drained_by_signals

ROUTES = (streams, websocket, operations, publish, history, tickets, revocations, session, health)
"""Streams first, which most requests ask for."""


class App(FastAPI):
    """The app behind its middleware, a part of which stands before its error handlers too."""

    def __init__(self, order: Sequence[Middleware], **options: Any) -> None:
        at = order.index(ERRORS)
        super().__init__(middleware=order[at + 1 :], **options)
        self._outer = order[:at]

    def build_middleware_stack(self) -> ASGIApp:
        """Return what requests go through."""
        app = super().build_middleware_stack()
        for middleware, args, options in reversed(self._outer):
            app = middleware(app, *args, **options)
        return app


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

    async def begin(app: FastAPI, resources: AsyncExitStack) -> None:
        ours = store if store is not None else await resources.enter_async_context(await Store.reach(config))
        await resources.enter_async_context(limiter.shared(ours))
        notes = {} if callback is None else await resources.enter_async_context(callback.running(ours))
        hub = await resources.enter_async_context(Hub(ours, config, tally=tally))
        hub.notes |= notes
        reaper = await resources.enter_async_context(Reaper(ours))
        await resources.enter_async_context(guard.over(ours, hub))
        registry = registry_of(hub, reaper, processes=config.processes)
        with suppress(TimeoutError):  # it goes on by itself, and until then tells that it is not ready
            async with asyncio.timeout(config.redis_timeout_s):
                await hub.started()
        app.state.context = Context(config, ours, hub, registry, FactCache(ours))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.starting = Starting(lambda resources: begin(app, resources), wrong, away)
        async with app.state.starting:
            with drained_by_signals(app):
                yield

    app = App(
        stack(config, tally, guard, limiter, callback),
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
    app.state.guard = guard
    problems.install(app)
    for module in ROUTES:
        answer_heads(module.router)
        app.include_router(module.router)
    pages.mount_pages(app)
    describe(app)
    return app
