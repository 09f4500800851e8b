"""The server: uvicorn on a socket of our own making, that tells its streams and its calls before it stops."""

import asyncio
import gc
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import Draining
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.auth.guard import Guard
from progress_server.callback.authenticator import Callback
from progress_server.context import Context
from progress_server.http.refusals import reject
from progress_server.protocols.adoption import AdoptableProtocol
from progress_server.protocols.http import Bounds
from progress_server.protocols.websocket import BoundedProtocol
from progress_server.server.sockets import BACKLOG, check_certificate
from progress_server.websocket.messages import MAX_MESSAGE_BYTES

KEEP_ALIVE_S = 75  # above proxies' own idle limits, so that they and not we close idle connections
LEAVE_S = 2
"""How long what is left of connections and calls may take once a server has drained, before it is cut."""
LAST_S = 1
"""How long the application may take to end when it is to end now."""
GC_THRESHOLDS = (5_000, 5, 1_000)
"""A connection is some eight objects that live for long and are freed without the collector. So it looks at few of them
at a time, at most twice, and hardly ever at all of them (`bench/collector.py`)."""


class Server(uvicorn.Server):
    """A uvicorn server whose streams end with a word to their clients when it is told to stop."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        check_certificate(settings)
        super().__init__(
            uvicorn.Config(
                Interruptible(app, lambda: self.should_exit),
                http=AdoptableProtocol.within(Bounds.of(settings, _most_files())),
                ws=BoundedProtocol,
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,  # it would be done for each client, with a window of its own
                ws_ping_interval=settings.ping_s,
                ws_ping_timeout=settings.stuck_timeout_s,  # a ping waits behind all that a slow client has yet to take
                backlog=BACKLOG,  # else it listens again with its own
                log_config=None,  # its lines go where all others go
                log_level=settings.log_level,
                access_log=False,  # the app has its own (`api/progress_server/middleware/access_log.py`)
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=LEAVE_S,
                server_header=False,
                forwarded_allow_ips=list(settings.trusted_proxies),
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._app = app
        self._drain_s = settings.drain_s
        self._starting: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until told to stop by a signal."""
        self._loop = asyncio.get_running_loop()
        _raise_file_limit()
        # Its own way to end streams cuts them without a word, and reaches into uvicorn by name; ours is `handle_exit`.
        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
        await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, unless told to stop meanwhile: without a Redis it would wait for ever.

        What is there by then stays, so the garbage collector need not look at it again.
        """
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
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain: at once for a Ctrl-C, as somebody waits for us. A second signal ends it."""
        if self._starting is not None:
            self._loop.call_soon_threadsafe(self._start_no_more)
        if self.should_exit:
            self.force_exit = True
            if self._draining is not None:
                self._loop.call_soon_threadsafe(self._draining.cancel)
        elif (context := self._context) is not None:
            over_s = 0 if sig == signal.SIGINT else self._drain_s
            self._loop.call_soon_threadsafe(context.hub.drain, over_s)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, once drained. Until then it listens, so that balancers are told `draining`, and no call is refused."""
        if not self.force_exit:
            self._draining = asyncio.create_task(self._drained())
            await asyncio.wait([self._draining], timeout=self._drain_s)
            self._draining.cancel()
        await self.leave(sockets)

    async def leave(self, sockets: list[socket.socket] | None) -> None:
        """Listen no more, and end."""
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn leaves calls and application to be torn, which it would complain of
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
        """Wait until all streams have been sent away, and the calls that are under way then are answered."""
        if self._context is not None:
            await self._context.hub.emptied()
        if self.server_state.tasks:
            await asyncio.wait(tuple(self.server_state.tasks))

    @property
    def _context(self) -> Context | None:
        return getattr(self._app.state, "context", None)


class Interruptible:
    """The whole app, whose calls answer `draining` when they are cancelled because the server stops."""

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self._app, self._stopping = app, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping():
                raise
            if scope["type"] == "lifespan":  # it had its time
                return
            if scope["type"] != "http":
                raise
            fault = Draining("this server has stopped, and did not wait for the rest of the request")
            try:
                await reject(fault, scope, receive, send)
            except RuntimeError:  # another answer has begun
                raise asyncio.CancelledError from None


def check(settings: Settings) -> None:
    """Raise `SetupError` if the keys, files or addresses that a server is to go by can't be used."""
    check_certificate(settings)
    Guard(settings, Callback(settings, Tally()) if settings.auth == "callback" else None)


def _most_files() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def _raise_file_limit() -> None:
    """Take all the file descriptors we may: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
