"""Startup: a replica serves at once, even while Redis is unavailable. What needs Redis starts when Redis responds.

Until then `/livez` responds, `/readyz` reports why the replica is not ready, and requests that need Redis are rejected
with a retry delay.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import BrokerError, SetupError, StorageReadOnly, StorageUnavailable
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import end
from progress_server.http.paths import class_of
from progress_server.http.rejections import COME_BACK_S, reject

log = logging.getLogger(__name__)


class Startup:
    """Starts what needs Redis, and retries until it succeeds. Use it as an async context manager.

    The block is entered when the start has succeeded, or when it is known that Redis is unavailable. If the caller
    knows that before, it passes the error as `away`. A permanent error (`SetupError`) is raised on entry. If it occurs
    after entry, it is passed to `wrong`.
    """

    def __init__(
        self,
        begin: Callable[[AsyncExitStack], Awaitable[None]],
        wrong: Callable[[SetupError], None],
        away: BrokerError | None = None,
    ) -> None:
        self.reason = ""
        """Why it has not started yet."""
        self.read_only = False
        """Whether the reason is that Redis is a replica."""
        self._begin, self._wrong = begin, wrong
        self._resources = AsyncExitStack()
        self._waiting = asyncio.Event()
        if away is not None:
            self._wait_for(away)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        waiting = asyncio.create_task(self._waiting.wait())
        try:
            await asyncio.wait((self._task, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(waiting)
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)
        await self._resources.aclose()

    async def _run(self) -> None:
        try:
            await until_back(self._try, away=self._wait_for)
        except SetupError as error:
            if not self._waiting.is_set():
                raise
            self.reason = error.detail
            self._wrong(error)
        else:
            if self._waiting.is_set():
                log.info("Redis is available: this server is ready")

    async def _try(self) -> None:
        async with AsyncExitStack() as resources:
            await self._begin(resources)
            self._resources = resources.pop_all()

    def _wait_for(self, error: BrokerError) -> None:
        if error.detail != self.reason:
            log.warning("this server is not ready, and keeps retrying: %s", error.detail)
        self.reason, self.read_only = error.detail, isinstance(error, StorageReadOnly)
        self._waiting.set()


def log_wrong(error: SetupError) -> None:
    """Log an error that this server can't recover from without a restart."""
    log.error("this server can't become ready; fix this error and restart the server: %s", error.detail)


class StartupMiddleware:
    """Middleware that rejects requests that need Redis, until the start has succeeded."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it with a retry delay."""
        if scope["type"] == "lifespan" or hasattr(scope["app"].state, "context") or class_of(scope).is_open:
            await self._app(scope, receive, send)
        else:
            await reject(not_started(scope), scope, receive, send)


def not_started(scope: Scope) -> StorageUnavailable:
    """Return the error for a request that needs Redis before the start has succeeded."""
    starting: Startup | None = getattr(scope["app"].state, "starting", None)
    if starting is None:
        return StorageUnavailable(
            "this server is not running: pass `lifespan=progress.lifespan` to the app that it is mounted in, or run"
            " `async with progress.lifespan(app)` within that app's own lifespan",
            retry_s=COME_BACK_S,
        )
    why = f": {starting.reason}" if starting.reason else ""
    kind = StorageReadOnly if starting.read_only else StorageUnavailable
    return kind(f"this server is not connected to Redis yet{why}", retry_s=COME_BACK_S)
