"""Chooses the server for an app, and the event loop that it runs on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn
from fastapi import FastAPI

from progress_broker.settings import Settings
from progress_server.protocols.names import DRAINING_SERVER, missing_from
from progress_server.server.plain import PlainServer
from progress_server.server.server import Server

AnyServer = Server | PlainServer


def server_of(
    app: FastAPI,
    settings: Settings,
    serving: Callable[[], None],
    stopping: Callable[[], None] | None = None,
    *,
    among_others: bool = False,
) -> AnyServer:
    """Return a `Server` for an app; a `PlainServer` if names that `Server` needs are missing. Options: see `Server`."""
    kind = Server if missing_from(DRAINING_SERVER) is None else PlainServer
    return kind(app, settings, serving, stopping, among_others=among_others)


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on the event loop that uvicorn prefers, which is uvloop if that is installed."""
    factory = uvicorn.Config(app="", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
