"""A replica, run: the listening socket first, then the store, then the server."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import typer
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.server import Server, listen
from broker.embedded import Embedded
from broker.errors import SetupError
from broker.settings import Settings
from broker.store import Store
from cli import connect
from cli.exits import note
from cli.stopping import until_stopped


class AnnouncedServer(Server):
    """A server that says when it serves."""

    def __init__(self, app: FastAPI, settings: Settings, serving: Callable[[], None]) -> None:
        super().__init__(app, settings)
        self._serving = serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self._serving()


def run(settings: Settings) -> None:
    """Serve until told to stop. A taken port is told before a Redis is started."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s: %(name)s: %(message)s")
    with until_stopped(), ExitStack() as resources:
        listener = resources.enter_context(listen(settings))
        if settings.redis_url is None:
            embedded = resources.enter_context(Embedded.start(settings))
            note(f"Redis: {embedded.description}")
            settings = connect.at(settings, embedded.url)
        run_loop(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> None:
    async with await Store.open(settings) as store:
        ready = f"serving on {address(listener)} - Ctrl-C stops it"
        server = AnnouncedServer(create_app(settings, store), settings, lambda: typer.echo(ready))
        await serve_on(server, listener)


async def serve_on(server: Server, listener: socket.socket) -> None:
    """Run a server; raise `SetupError` if it can't start. What it logged says why."""
    try:
        await server.run_on(listener)
    except SystemExit:
        raise SetupError("the server could not start: the log above says why") from None


def run_loop(main: Any) -> None:
    """Run a coroutine on the loop that the server prefers."""
    factory = uvicorn.Config(app="").get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def address(listener: socket.socket) -> str:
    """Return the page's address."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
