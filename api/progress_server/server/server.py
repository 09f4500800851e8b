"""The server: uvicorn on our own socket. Before it stops, it disconnects its streams and finishes its requests.

uvicorn documents how a server is configured, served and told to stop. What happens in between - the methods overridden
here and the state they read - is undocumented; `api/progress_server/protocols/names.py` lists it.
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from progress_broker.errors import Draining
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.auth.guard import Guard
from progress_server.callback.authenticator import CallbackAuthenticator
from progress_server.http.rejections import reject
from progress_server.protocols.choice import warn_of_missing_names
from progress_server.server.config import certificate_of, config_of, freeze_what_started, raise_file_limit
from progress_server.server.signals import context_now
from progress_server.server.sockets import check_certificate, leave_to_others

LAST_S = 1
"""How long the application may take to end after a second signal."""


class Server(uvicorn.Server):
    """A uvicorn server that tells the clients of its streams to reconnect before it stops.

    `serving` is called once it accepts connections, and `stopping` at the first signal to stop. With `among_others`,
    other processes listen on the same address: the server leaves new connections to them when it ends, and ignores all
    signals after the first, because the system and the supervisor may both send one.
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
        super().__init__(config_of(ShutdownMiddleware(app, lambda: self.should_exit), settings, certificate_of(app)))
        self._app = app
        app.state.server_drains = True
        self._drain_s = settings.drain_s
        self._serving, self._stopping, self._among_others = serving, stopping, among_others
        self._starting: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until told to stop by a signal."""
        self._loop = asyncio.get_running_loop()
        raise_file_limit()
        await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; stop waiting if a signal arrives meanwhile, because without Redis the start may never finish."""
        self._starting = asyncio.current_task()
        try:
            await super().startup(sockets)
        except asyncio.CancelledError:
            if not self.should_exit or self._starting is None:
                raise
            self._starting.uncancel()
            return
        finally:
            self._starting = None
        freeze_what_started()
        if self.started and self._serving is not None:
            self._serving()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down. On Ctrl-C all clients are disconnected at once. A second signal ends it now."""
        if self._among_others and self.should_exit:
            return
        if self._stopping is not None and not self.should_exit:
            self._stopping()
        if self._starting is not None:
            self._loop.call_soon_threadsafe(self._start_no_more)
        if self.should_exit:
            self.force_exit = True
            if self._draining is not None:
                self._loop.call_soon_threadsafe(self._draining.cancel)
        elif (context := context_now(self._app)) is not None:
            over_s = 0 if sig == signal.SIGINT else self._drain_s
            self._loop.call_soon_threadsafe(context.hub.drain, over_s)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop when all streams and requests have ended. Until then the server listens, so that load balancers get
        `draining` and no request is rejected."""
        if not self.force_exit:
            self._draining = asyncio.create_task(self._drained())
            await asyncio.wait([self._draining], timeout=self._drain_s)
            self._draining.cancel()
        await self._leave(sockets)

    async def _leave(self, sockets: list[socket.socket] | None) -> None:
        """Stop listening, and end the server."""
        if self._among_others:  # the supervisor's copy of the socket stays open
            for listener in sockets or ():
                leave_to_others(listener)
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn abandons requests and the application, and logs errors about them
            for task in (tasks := tuple(self.server_state.tasks)):
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=LAST_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), LAST_S)

    def _start_no_more(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    async def _drained(self) -> None:
        """Wait until all streams are disconnected, and the requests that were in progress then are answered."""
        if (context := context_now(self._app)) is not None:
            await context.hub.wait_until_empty()
        if self.server_state.tasks:
            await asyncio.wait(tuple(self.server_state.tasks))


class ShutdownMiddleware:
    """Middleware around the whole app. Requests that are cancelled because the server stops get a `draining` error."""

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; if it is cancelled because the server stops, answer it with `draining`."""
        if scope["type"] == "lifespan":
            send = self._without_failed_start(send)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping():
                raise
            if scope["type"] == "lifespan":  # the application has had time to end
                return
            if scope["type"] != "http":
                raise
            fault = Draining("this server stopped before the request was complete: send the request again")
            try:
                await reject(fault, scope, receive, send)
            except RuntimeError:  # the response has already begun
                raise asyncio.CancelledError from None

    def _without_failed_start(self, send: Send) -> Send:
        """Return a `send` that leaves out a failed start if the server stops: it was cancelled, and is no error."""

        async def passing(message: Message) -> None:
            if not (self._stopping() and message["type"] == "lifespan.startup.failed"):
                await send(message)

        return passing


def check(settings: Settings) -> None:
    """Raise `SetupError` if keys, files or addresses of the settings can't be used.

    Log a warning for undocumented names that the installed packages lack: a server can do without them.
    """
    check_certificate(settings)
    Guard(settings, CallbackAuthenticator(settings, Tally()) if settings.auth == "callback" else None)
    warn_of_missing_names()
