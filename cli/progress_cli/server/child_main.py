"""One of several server processes. It serves on a socket that it inherits, with settings from its supervisor.

Standard input is a socket to the supervisor, with a line of JSON for each word. The supervisor first sends the settings
and the listener (secrets must not be on a command line), later `reload`, or `ask` with a number. This process tells
that it serves, or why it can't; that it is alive; that it has reloaded; and answers. If the connection closes, the
supervisor has died.
"""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import redis.exceptions
from fastapi import FastAPI

from progress_broker.errors import BrokerError, SetupError
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings
from progress_cli.exit_codes import exit_code
from progress_cli.logging import log_as
from progress_cli.server.child import BEAT_S
from progress_cli.server.run import serve
from progress_cli.shutdown import until_stopped
from progress_server.routes.health import metrics_text
from progress_server.server.notify import beating
from progress_server.server.start import run_loop


def main() -> None:
    """Serve until stopped, or until the supervisor dies."""
    with until_stopped(), socket.socket(fileno=sys.stdin.fileno()) as supervisor:
        line = supervisor.makefile("rb", buffering=0).readline()  # and nothing of the next line
        if not line:
            return
        orders = json.loads(line)
        settings = Settings(**orders["settings"], _env_file=None)
        log_as(settings, "%(process)d: ")
        try:
            run_loop(_serve(settings, orders["given"], socket.socket(fileno=orders["listener"]), supervisor))
        except BrokerError as error:
            _fail(supervisor, error)
        except redis.exceptions.RedisError as error:
            _fail(
                supervisor,
                SetupError(f"Redis returned an error: {error}; check PROGRESS_REDIS_URL and what its user may do"),
            )


class _Supervisor:
    """The supervisor, as one of its processes hears it."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._app: FastAPI | None = None
        self._writer: asyncio.StreamWriter | None = None

    def made(self, app: FastAPI) -> None:
        """Obey what the supervisor asks of this app, and tell it of reloads."""
        self._app = app
        app.state.reloader.reloaded = lambda: self.tell(reloaded=True)

    def tell(self, **words: object) -> None:
        """Send a word."""
        if self._writer is None:
            _tell(self._pipe, **words)
        else:
            self._writer.write(_line(words))

    def stopping(self) -> None:
        """Do nothing: it is the supervisor who stops this process."""

    def reloading(self) -> AbstractContextManager[None]:
        """Do nothing: the reloader tells."""
        return nullcontext()

    def watching(self, alive: Callable[[], bool]) -> AbstractAsyncContextManager[None]:
        """Tell every few seconds in a block that this process is alive, while the loop runs and `alive` says so."""
        return beating(lambda: self.tell(alive=True), alive, BEAT_S)

    async def listen(self) -> None:
        """Do what the supervisor asks. If it has died, stop."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._pipe.dup())
        try:
            # The kernel's signal at a parent's death exists only on Linux, and is lost if it comes before we can
            # handle it.
            with suppress(OSError):
                while line := await reader.readline():
                    await self._obey(json.loads(line))
            signal.raise_signal(signal.SIGTERM)
        finally:
            self._writer.close()
            self._writer = None

    async def _obey(self, order: dict[str, Any]) -> None:
        if "reload" in order and self._app is not None:
            with suppress(SetupError):  # the log says why nothing has changed
                self._app.state.reloader.reload()
        elif "ask" in order:
            self.tell(answer=order["n"], text="" if self._app is None else await metrics_text(self._app))


async def _serve(settings: Settings, given: dict[str, Any], listener: socket.socket, pipe: socket.socket) -> None:
    supervisor = _Supervisor(pipe)
    listening = asyncio.create_task(supervisor.listen())
    try:
        serves = partial(supervisor.tell, error=None)
        await serve(settings, given, listener, serves, supervisor, among_others=True, made=supervisor.made)
    finally:
        await end(listening)


def _fail(supervisor: socket.socket, error: BrokerError) -> None:
    _tell(supervisor, error=error.code, detail=error.detail)
    sys.exit(exit_code(error))


def _tell(supervisor: socket.socket, **words: object) -> None:
    with suppress(OSError):  # the supervisor died meanwhile, which is noticed elsewhere
        supervisor.sendall(_line(words))


def _line(words: dict[str, object]) -> bytes:
    return json.dumps(words).encode() + b"\n"


if __name__ == "__main__":
    main()
