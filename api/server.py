"""The server: uvicorn on a socket of our own making, that tells its streams before it stops."""

import asyncio
import gc
import resource
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from api.adoption import AdoptableProtocol
from api.context import Context
from api.listener import BACKLOG
from api.tls import check_certificate
from broker.settings import Settings

KEEP_ALIVE_S = 75  # above proxies' own idle limits, so that they and not we close idle connections
GC_THRESHOLDS = (5_000, 5, 1_000)
"""A connection is some eight objects that live for long and are freed without the collector. So it looks at few of them
at a time, at most twice, and hardly ever at all of them (`bench/collector.py`)."""


class Server(uvicorn.Server):
    """A uvicorn server whose streams end with a word to their clients when it is told to stop."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        check_certificate(settings)
        super().__init__(
            uvicorn.Config(
                app,
                http=AdoptableProtocol,
                backlog=BACKLOG,  # else it listens again with its own
                log_level=settings.log_level,
                access_log=settings.log_level == "debug",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=round(max(1, settings.drain_s)),
                server_header=False,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._app = app

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until told to stop by a signal."""
        self._loop = asyncio.get_running_loop()
        _raise_file_limit()
        # Its own way to end streams cuts them without a word, and reaches into uvicorn by name; ours is `handle_exit`.
        AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
        await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; what is there by then stays, so the garbage collector need not look at it again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Send the clients of streams away, so that uvicorn does not wait for them; a second signal ends at once."""
        context: Context | None = getattr(self._app.state, "context", None)
        if context is not None:
            self._loop.call_soon_threadsafe(context.hub.drain)
        super().handle_exit(sig, frame)


def _raise_file_limit() -> None:
    """Take all the file descriptors we may: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
