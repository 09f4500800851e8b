"""Starting: a replica serves at once, also while Redis is away. What needs Redis begins when that answers.

Until then `/livez` answers, `/readyz` says why it is not ready, and all else that needs Redis is told to come back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import BrokerError, SetupError, StorageUnavailable
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import end
from progress_server.http.paths import class_of
from progress_server.http.refusals import COME_BACK_S, reject

log = logging.getLogger(__name__)


class Starting:
    """Begins what needs Redis, as often as it takes. Use it as an async context manager, within which it is begun.

    The block is entered when it has begun, or when it is known that this has to wait; `away` says why, where that is
    known before. What is wrong for good is raised then; if it comes out later, `wrong` is called with it.
    """

    def __init__(
        self,
        begin: Callable[[AsyncExitStack], Awaitable[None]],
        wrong: Callable[[SetupError], None],
        away: BrokerError | None = None,
    ) -> None:
        self.reason = ""
        """Why it has not begun."""
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
                log.info("Redis can be used now: this server has begun its work")

    async def _try(self) -> None:
        async with AsyncExitStack() as resources:
            await self._begin(resources)
            self._resources = resources.pop_all()

    def _wait_for(self, error: BrokerError) -> None:
        if error.detail != self.reason:
            log.warning("this server is not ready, and tries again until it is: %s", error.detail)
        self.reason = error.detail
        self._waiting.set()


def log_wrong(error: SetupError) -> None:
    """Say that this server will never be ready."""
    log.error("this server can't be ready until it is started anew: %s", error.detail)


class UntilStarted:
    """Middleware that sends requests away which need Redis, until what serves them has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go on; or refuse for a while."""
        if scope["type"] == "lifespan" or hasattr(scope["app"].state, "context") or class_of(scope).is_open:
            await self._app(scope, receive, send)
        else:
            await reject(not_started(scope), scope, receive, send)


def not_started(scope: Scope) -> StorageUnavailable:
    """Return what a request is told that needs Redis too early."""
    starting: Starting | None = getattr(scope["app"].state, "starting", None)
    why = f": {starting.reason}" if starting is not None and starting.reason else ""
    return StorageUnavailable(f"this server can't use Redis yet{why}", retry_s=COME_BACK_S)
