"""The server: uvicorn on a socket of our own making, that tells its streams before it stops."""

import asyncio
import gc
import resource
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from api.adoption import AdoptableProtocol
from api.context import Context
from broker.errors import SetupError
from broker.settings import LOOPBACK, Settings

KEEP_ALIVE_S = 75  # above proxies' own idle limits, so that they and not we close idle connections
BACKLOG = 4096
_GC_THRESHOLDS = (10_000, 20, 20)
"""A connection is some eight objects that live for long and are freed without the collector. With Python's own settings
it stopped everything for 290 ms while 16,000 clients came, frozen start-up and all for 145 ms, with these for 4 ms."""

_TCP_OPTIONS = {  # inherited by accepted connections; they find peers that vanished without a word
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket; raise `SetupError` when the address can't be had, or must not be without a key."""
    if settings.auth == "none" and settings.host not in LOOPBACK and not settings.insecure:
        raise SetupError(
            f"without authentication only this machine may be served, and {settings.host} is open to others:"
            " listen on 127.0.0.1, or say --insecure where something in front keeps strangers out"
        )
    return _bind(settings.host, settings.port)


def listen_for_each(settings: Settings, processes: int) -> list[socket.socket]:
    """Return a listening socket for each process, all on one address; raise `SetupError` as `listen` does.

    The kernel spreads connections over them evenly; over processes that accept from one socket they do not spread at
    all well (`bench/spread.py`). But with SO_REUSEPORT a taken address looks free to programs of the same user, so an
    ordinary socket has to get it first, and holds it until all are there.
    """
    if sys.platform != "linux":
        raise SetupError("many processes need Linux, whose kernel spreads connections over them: leave out --processes")
    with listen(settings) as proof:
        port = proof.getsockname()[1]
        proof.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return [_bind(settings.host, port, reuse_port=True) for _ in range(processes)]


def _bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=reuse_port)
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
                http=AdoptableProtocol,
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; what is there by then stays, so the garbage collector need not look at it again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)

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
