"""A server that uses only documented names of uvicorn, for when names that `Server` needs are missing."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from progress_broker.settings import Settings
from progress_server.context import Context
from progress_server.server.config import certificate_of, config_of, freeze_what_started, raise_file_limit
from progress_server.server.server import ShutdownMiddleware
from progress_server.server.signals import Handler, context_now, take_signals


class PlainServer:
    """A server that disconnects its streams before uvicorn handles a signal. Its options are those of `Server`.

    uvicorn has set its signal handlers by the time it starts the application. They are called once all streams have
    ended; a second signal goes to them at once.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        serving: Callable[[], None] | None = None,
        stopping: Callable[[], None] | None = None,
        *,
        among_others: bool = False,
    ) -> None:
        self._app, self._drain_s, self._among_others = app, settings.drain_s, among_others
        self._serving, self._stopping = serving, stopping
        app.state.server_drains = True
        noticing = Noticing(ShutdownMiddleware(app, lambda: self.should_exit), self._started)
        self._server = uvicorn.Server(config_of(noticing, settings, certificate_of(app)))
        self._draining: asyncio.Task[None] | None = None
        self._signalled = False

    @property
    def should_exit(self) -> bool:
        """Whether the server is stopping, or was asked to stop."""
        return self._server.should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._server.should_exit = value

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until told to stop by a signal."""
        self._loop = asyncio.get_running_loop()
        raise_file_limit()
        await self._server.serve(sockets=[listener])

    def _started(self) -> None:
        freeze_what_started()
        take_signals(self._stop)  # uvicorn restores them when it has stopped
        if self._serving is not None:
            self._serving()  # the socket is listening already: new connections wait in it for a moment

    def _stop(self, theirs: Handler, number: int) -> None:
        context = context_now(self._app)
        if self._signalled and self._among_others:
            return
        if self._stopping is not None and not self._signalled:
            self._stopping()
        if self._signalled or context is None:
            theirs(number, None)
        else:
            self._loop.call_soon_threadsafe(self._drain, context, partial(theirs, number, None), number)
        self._signalled = True

    def _drain(self, context: Context, stop: Callable[[], Any], number: int) -> None:
        context.hub.drain(0 if number == signal.SIGINT else self._drain_s)
        self._draining = asyncio.create_task(self._drained(context, stop))

    async def _drained(self, context: Context, stop: Callable[[], Any]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                await context.hub.wait_until_empty()
        stop()


class Noticing:
    """Wraps an ASGI app, and calls `started` once the app has started."""

    def __init__(self, app: ASGIApp, started: Callable[[], None]) -> None:
        self._app, self._started = app, started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        await self._app(scope, receive, self._noticing(send) if scope["type"] == "lifespan" else send)

    def _noticing(self, send: Send) -> Send:
        async def send_and_notice(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._started()

        return send_and_notice
