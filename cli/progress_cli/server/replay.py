"""Serves a replay: the page, streams and calls over a Redis in memory, where events happen when they are due."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import typer

from progress_broker.model.grants import Action, Grant, Grants
from progress_broker.replay.memory import MemoryStore
from progress_broker.replay.recording import Recording
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings
from progress_cli.logging import log_as
from progress_cli.server.run import address, serve_on
from progress_cli.shutdown import until_stopped
from progress_server.app import create_app
from progress_server.auth.principal import Principal
from progress_server.server.sockets import listen
from progress_server.server.start import run_loop, server_of

_OWN: dict[str, Any] = {
    "host": "127.0.0.1",
    "processes": 1,
    "log_level": "warning",
    "redis_url": None,
    "url": None,
    "auth": "none",
    "tls_cert": None,
    "tls_key": None,
    "metrics_port": None,
    "lanes": None,
}
"""Settings of this server, whatever those of others are."""
_VIEWER = Principal("", Grants((Grant(frozenset({Action.READ})),)))


class _Viewers:
    """Lets everybody read. What changed something would be of now, and not of the time that is replayed."""

    async def authenticate(self, connection: object) -> Principal:
        """Return the principal that may read everything."""
        return _VIEWER


def serve_replay(
    settings: Settings,
    port: int,
    load: Callable[[], Awaitable[Recording]],
    play: Callable[[Recording, MemoryStore], Awaitable[None]],
) -> None:
    """Serve at a port of this machine until stopped. `play` lets the events happen, once the server is there."""
    settings = settings.model_copy(update=_OWN | {"port": port})
    log_as(settings)
    with until_stopped(), listen(settings) as listener:
        run_loop(_serve(settings, listener, load, play))


async def _serve(
    settings: Settings,
    listener: socket.socket,
    load: Callable[[], Awaitable[Recording]],
    play: Callable[[Recording, MemoryStore], Awaitable[None]],
) -> None:
    store = await MemoryStore.in_memory(settings)  # first: it says what has to be installed
    async with store:
        recording, serving = await load(), asyncio.Event()
        server = server_of(create_app(settings, store, authenticator=_Viewers()), settings, serving.set)

        async def played() -> None:
            await serving.wait()
            typer.echo(f"serving on {address(listener, settings)} - Ctrl-C stops it")
            try:
                await play(recording, store)
            except BaseException:
                server.should_exit = True
                raise

        playing = asyncio.create_task(played())
        try:
            await serve_on(server, listener)
        finally:
            await end(playing)
        if not playing.cancelled():
            playing.result()
