"""The app factory: it builds the ASGI app from its middleware, routes and resources."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from progress_broker.access.audit import Audit
from progress_broker.access.fact_cache import AttributeCache
from progress_broker.bulk.job import Jobs
from progress_broker.errors import BrokerError, SetupError
from progress_broker.hub import Hub
from progress_broker.limits.limiter import Limiter
from progress_broker.limits.principals import LimitsCopy
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.replicas.calls import ASK, Answerer, Question
from progress_broker.replicas.presence import Presence
from progress_broker.replicas.streams import LocalStreams
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings, load_settings
from progress_server.auth.guard import Authenticator, Guard
from progress_server.callback.authenticator import CallbackAuthenticator
from progress_server.context import Context, live_settings
from progress_server.description.openapi import describe
from progress_server.http import problems
from progress_server.http.routing import answer_heads, redirect_slashes
from progress_server.middleware.audit import AuditMiddleware
from progress_server.middleware.direct_routes import DirectRoutes
from progress_server.middleware.stack import ERRORS, FULL_EDGE, Edge, build_stack
from progress_server.middleware.startup import Startup, log_wrong
from progress_server.observability.log_ring import LogRing
from progress_server.observability.logs import redact_requests
from progress_server.observability.metrics import registry_of
from progress_server.observability.redis_state import RedisState
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
    workers,
)
from progress_server.routes.operators import audit as audit_route
from progress_server.routes.operators import bulk, changes, counts, exports, monitor, observe, replay
from progress_server.routes.operators import limits as principal_limits
from progress_server.routes.operators import streams as open_streams
from progress_server.server.reload import Reloader, reload_when_asked
from progress_server.server.signals import drained_by_signals

ROUTES = (
    *(streams, websocket, counts, bulk, operations, publish, workers, history, tickets, revocations, session, health),
    *(observe, open_streams, audit_route, changes, principal_limits, exports, replay, monitor),
)
"""Streams come first: most requests are for streams, and routes are matched in this order."""

DIRECT = (streams.DIRECT, publish.DIRECT)


@cache
def _routes() -> list[BaseRoute]:
    """Return all routes but the pages. Apps of a process share them: it takes much longer to make them than an app."""
    router = APIRouter(generate_unique_id_function=_operation_id)
    for module in ROUTES:
        answer_heads(module.router)
        router.include_router(module.router)
    return router.routes


def _operation_id(route: APIRoute) -> str:
    return route.name


class App(FastAPI):
    """A FastAPI app of which some middleware runs outside the error handlers."""

    def __init__(self, order: Sequence[Middleware], **options: Any) -> None:
        at = order.index(ERRORS)
        super().__init__(middleware=order[at + 1 :], **options)
        self.outer = order[:at]
        """The middleware outside the error handlers, the outermost first."""

    def build_middleware_stack(self) -> ASGIApp:
        """Return the app wrapped in all of its middleware."""
        app = super().build_middleware_stack()
        for middleware, args, options in reversed(self.outer):
            app = middleware(app, *args, **options)
        return app


@asynccontextmanager
async def _answering(store: Store, hub: Hub, reloader: Reloader, drain_s: float) -> AsyncIterator[None]:
    """Answer what operators ask this replica through any other: which streams it has, to kick, reload and drain."""
    local = LocalStreams(hub)
    asked = {
        Question.STREAMS: local.listed,
        Question.KICK: local.kick,
        Question.RELOAD: lambda _: reload_when_asked(reloader),
        Question.DRAIN: local.drain(drain_s),
    }
    async with Answerer(store, hub.streams.replica, asked) as answerer:
        hub.internal_handlers[ASK] = answerer.received
        yield


def create_app(
    settings: Settings | None = None,
    store: Store | None = None,
    *,
    away: BrokerError | None = None,
    wrong: Callable[[SetupError], None] = log_wrong,
    authenticator: Authenticator | None = None,
    edge: Edge = FULL_EDGE,
    reread: Callable[[], Settings] | None = None,
) -> FastAPI:
    """Return the app.

    If a `store` is passed, the app uses it and does not close it. Otherwise the app opens its own.

    While Redis is unavailable, the app serves the requests that do not need Redis. If the caller has just found that
    Redis is unavailable, it passes the error as `away`; the start then does not wait for Redis. `wrong` is called if
    Redis answers but can never be used, for example because its version is too old.

    An `authenticator` is code of an app that this server is mounted in. It decides instead of `PROGRESS_AUTH`.

    A reload takes the settings that `reread` returns. Without it, those are the settings that were passed, whose files
    are read again; or those of the environment.

    As an ASGI factory: `uvicorn --factory progress_server.app:create_app`, with settings from the environment.
    """
    config = settings or load_settings()
    tally = Tally()
    app_decides = authenticator is not None
    callback = CallbackAuthenticator(config, tally) if config.auth == "callback" and not app_decides else None
    admit = None if callback is None else callback.admit
    guard = Guard(config, authenticator or callback, admit, app_decides=app_decides)
    limiter = Limiter(config, tally, authenticated=app_decides)
    audit = Audit(tally)
    live = live_settings(config)
    reloader = Reloader(config, reread or (load_settings if settings is None else lambda: config), tally)
    reloader.add(guard.prepare, limiter.prepare, live.prepare)
    if callback is not None:
        reloader.add(callback.address_rate.prepare)
    redact_requests()

    async def begin(app: FastAPI, resources: AsyncExitStack) -> None:
        ours = store if store is not None else await resources.enter_async_context(await Store.reach(config))
        await resources.enter_async_context(audit.stored_in(ours))
        await resources.enter_async_context(limiter.shared(ours))
        handlers = {} if callback is None else await resources.enter_async_context(callback.running(ours))
        hub = await resources.enter_async_context(Hub(ours, config, tally=tally))
        hub.internal_handlers |= handlers
        await resources.enter_async_context(_answering(ours, hub, reloader, config.drain_s))
        reaper = await resources.enter_async_context(Reaper(ours))
        await resources.enter_async_context(guard.running(ours, hub, LimitsCopy(ours, limiter)))
        ring = LogRing()
        resources.enter_context(ring.attached())
        state = RedisState(ours)
        registry = registry_of(hub, reaper, state, live, limiter, processes=config.processes)
        with suppress(
            TimeoutError
        ):  # the hub keeps starting in the background; until it is done, /readyz reports not ready
            async with asyncio.timeout(config.redis_timeout_s):
                await hub.started()
        await resources.enter_async_context(Presence(ours, config, hub, lambda: limiter.limits.streams))
        resources.callback(delattr, app.state, "context")
        jobs = await resources.enter_async_context(Jobs(ours, audit))
        facts = AttributeCache(ours)
        app.state.context = Context(
            config, ours, hub, registry, facts, jobs, audit, state.refresh, ring, app_decides=app_decides
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.starting = Startup(lambda resources: begin(app, resources), wrong, away)
        try:
            async with app.state.starting:
                with drained_by_signals(app):
                    yield
        finally:
            del app.state.starting

    app = App(
        [
            *build_stack(config, tally, guard, limiter, callback, live, edge),
            Middleware(DirectRoutes, routes=DIRECT),
            Middleware(AuditMiddleware, audit=audit),
        ],
        title="Progress broker",
        description="The progress of long-running operations, as resources and as server-sent events.",
        version="1",
        docs_url=None,  # FastAPI's page loads third-party scripts into our origin; ours is served at the same path
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        lifespan=lifespan,
        # FastAPI's own tracing would record whole query strings, including tickets. Ours is in
        # `api/progress_server/observability/tracing.py`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.guard, app.state.audit, app.state.reloader, app.state.live = guard, audit, reloader, live
    problems.install(app)
    app.router.routes.extend(_routes())
    pages.mount_pages(app)
    redirect_slashes(app)
    describe(app, config, app_decides=app_decides)
    return app
