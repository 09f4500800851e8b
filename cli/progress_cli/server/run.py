"""Runs one or several server processes: first the listening socket, then the store, then the server."""

import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import typer
from fastapi import FastAPI

from progress_broker.access.audit import Audit, AuditEntry
from progress_broker.embedded.embedded import Embedded
from progress_broker.errors import BrokerError, SetupError, StorageFull, StorageUnavailable
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import Tasks
from progress_broker.settings import Settings, load_settings
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.exit_codes import print_info
from progress_cli.logging import log_as, prepare_level
from progress_cli.options import GIVEN
from progress_cli.server.hang_up import hang_up_reloads
from progress_cli.server.metrics_port import MetricsPort
from progress_cli.server.supervisor import supervise
from progress_cli.shutdown import until_stopped
from progress_cli.unknown_settings import misspelled
from progress_server.app import create_app
from progress_server.routes.health import metrics_text
from progress_server.server.notify import NO_MANAGER, Manager, ServiceManager
from progress_server.server.reload import Reloader, described
from progress_server.server.server import check
from progress_server.server.signals import context_now
from progress_server.server.sockets import listen, listen_for_each
from progress_server.server.start import AnyServer, run_loop, server_of

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until stopped. Invalid keys and a used port are reported before a Redis is started."""
    given = dict(GIVEN.get())
    log_as(settings)
    manager = ServiceManager.taken_from(os.environ, os.getpid())
    for line in misspelled():
        log.warning(line)
    check(settings)
    with until_stopped(), ExitStack() as resources:
        many = settings.processes > 1
        listeners = listen_for_each(settings, settings.processes) if many else [listen(settings)]
        for listener in listeners:
            resources.enter_context(listener)
        if settings.redis_url is None:
            embedded = resources.enter_context(Embedded.start(settings))
            print_info(f"Redis: {embedded.description}")
            settings = connect.at(settings, embedded.url)
            given = given | {"redis_url": embedded.url}
        where = f"serving on {address(listeners[0], settings)}{f' - {settings.processes} processes' if many else ''}"
        said = f"{where} - Ctrl-C stops it"
        say = print_info if settings.log_format == "json" else typer.echo

        def ready() -> None:
            say(said)
            manager.ready(where)

        if many:
            supervise(settings, given, listeners, ready, manager)
        else:
            run_loop(serve(settings, given, listeners[0], ready, manager))


async def serve(
    settings: Settings,
    given: Mapping[str, Any],
    listener: socket.socket,
    serving: Callable[[], None],
    manager: Manager = NO_MANAGER,
    *,
    among_others: bool = False,
    made: Callable[[FastAPI], None] = lambda _: None,
) -> None:
    """Run a server with its own store. If Redis is unavailable, start at once and wait for it.

    SIGHUP reloads the settings: those that were `given` as options stay. `made` gets the app.

    With `among_others` it is one of several processes on its address. Raises `SetupError` for a permanent error,
    whenever it is found.
    """
    store, away = await _reach(settings)
    found_wrong: list[SetupError] = []

    def give_up(error: SetupError) -> None:
        found_wrong.append(error)
        server.should_exit = True

    def alive() -> bool:
        context = context_now(app)  # there is none while Redis is away
        return context is None or context.hub.probes.turning

    app = create_app(settings, store, away=away, wrong=give_up, reread=partial(load_settings, **given))
    reloader: Reloader = app.state.reloader
    reloader.add(prepare_level)
    made(app)
    server = server_of(app, settings, serving, manager.stopping, among_others=among_others)
    by_signal = Tasks()

    def hang_up() -> None:
        by_signal.spawn(_reload(reloader, app.state.audit, manager))

    def stop() -> None:
        signal.raise_signal(signal.SIGTERM)

    async def ready() -> bool:
        context = context_now(app)
        return context is not None and context.hub.ready

    alone = nullcontext() if among_others else MetricsPort(partial(metrics_text, app), ready).listening(settings)
    async with store or nullcontext(), manager.watching(alive), alone:
        with hang_up_reloads(hang_up, stop):
            await serve_on(server, listener)
        await by_signal.close()
    if found_wrong:
        raise found_wrong[0]


async def _reload(reloader: Reloader, audit: Audit, manager: Manager) -> None:
    """Reload because of a signal. The log says what came of it."""
    entry = AuditEntry(caller(), "signal", "reload", "")
    try:
        with manager.reloading():
            entry = entry._replace(detail=described(reloader.reload()))
    except SetupError as error:
        entry = entry._replace(result=error.code, detail=error.detail)
    await audit.record(entry)


async def _reach(settings: Settings) -> tuple[Store | None, BrokerError | None]:
    """Return the store, or the reason why Redis can't be used now."""
    try:
        return await Store.reach(settings), None
    except (StorageUnavailable, StorageFull) as error:
        return None, error


async def serve_on(server: AnyServer, listener: socket.socket) -> None:
    """Run a server; raise `SetupError` if it can't start. The log has the reason."""
    try:
        await server.run_on(listener)
    except SystemExit:
        raise SetupError("the server could not start: see the log above for the reason") from None


def address(listener: socket.socket, settings: Settings) -> str:
    """Return the address of the dashboard."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
