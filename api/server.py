"""The server: uvicorn on a socket of our own making, that tells its streams before it stops."""

import asyncio
import resource
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from api.context import Context
from broker.errors import SetupError
from broker.settings import LOOPBACK, Settings

KEEP_ALIVE_S = 75  # above proxies' own idle limits, so that they and not we close idle connections
BACKLOG = 4096
_TCP_OPTIONS = {  # inherited by accepted connections; they find peers that vanished without a word
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket; raise `SetupError` when the address can't be had, or must not be without a key."""
    host, port = settings.host, settings.port
    if settings.auth == "none" and host not in LOOPBACK and not settings.insecure:
        raise SetupError(
            f"without authentication only this machine may be served, and {host} is open to others:"
            " listen on 127.0.0.1, or say --insecure where something in front keeps strangers out"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SetupError(
            f"can't listen on {host}:{port} ({error.strerror or error}):"
            " stop what listens there, or choose another --port"
        ) from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listener


class Server(uvicorn.Server):
    """A uvicorn server whose streams end with a word to their clients when it is told to stop."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level=settings.log_level,
                access_log=settings.log_level == "debug",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=round(max(1, settings.drain_s)),
                server_header=False,
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
