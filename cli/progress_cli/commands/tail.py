"""`tail`: follow an operation to its end. The exit code tells how the operation ended."""

import asyncio
import os
import stat
import sys
import time
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from progress_broker.errors import StorageUnavailable
from progress_broker.history import event_log
from progress_broker.history.event_log import HistoryLost
from progress_broker.model.event import END
from progress_broker.model.operation import Status
from progress_broker.model.position import START
from progress_broker.model.position import parse as parse_position
from progress_broker.operations.store import Store
from progress_broker.runtime.backoff import backoff_s
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import CANCELLED, FAILED, OK, print_error
from progress_cli.operation_options import AsJson, Id
from progress_cli.options import CLIENT, with_settings
from progress_cli.output.live import View, choose_view

OUTCOMES = {Status.SUCCEEDED: OK, Status.FAILED: FAILED, Status.CANCELLED: CANCELLED}
"""The exit codes."""
PATIENCE_S = 30
"""How long to wait for a Redis that became unavailable, in seconds."""


@with_settings(*CLIENT)
def tail(
    settings: Settings,
    id: Id,
    beginning: Annotated[
        str | None,
        typer.Option("--from", metavar="start|POSITION", help="Replay all stored events, or those after a position."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow an operation until it ends: show its state now, and each event as it happens.

    The exit code is 0 if the operation succeeded, 1 if it failed, and 3 if it was cancelled.
    """
    if beginning not in (None, "start"):
        parse_position(str(beginning))
    status = asyncio.run(_tail(connect.locate(settings), id, beginning, as_json))
    raise typer.Exit(OUTCOMES[status])


async def _tail(settings: Settings, id: str, beginning: str | None, as_json: bool) -> Status:
    async with await Store.open(settings) as store:
        with choose_view(as_json) as view:
            await while_read(Following(store, id, view).run(beginning))
        return (await store.get(id)).status


async def while_read(work: Coroutine[Any, Any, None]) -> None:
    """Do the work. If the reader of our output closes its end, raise `BrokenPipeError`, even if nothing is written."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    gone: asyncio.Future[None] = loop.create_future()
    output = sys.stdout.fileno()
    watched = stat.S_ISFIFO(os.fstat(output).st_mode)

    def leave() -> None:
        if not gone.done():
            gone.set_result(None)

    if watched:
        loop.add_reader(output, leave)  # when the reader closes a pipe, its write end becomes readable, with an error
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise BrokenPipeError
        task.result()
    finally:
        if watched:
            loop.remove_reader(output)
        await end(task)


class Following:
    """Follows one operation: holds the position in its log, and what was shown."""

    def __init__(self, store: Store, id: str, view: View) -> None:
        self._store, self._id, self._view = store, id, view
        self._position = START
        self._ended = False

    async def run(self, beginning: str | None) -> None:
        """Show the operation from there to its end."""
        await self._begin(beginning)
        await self._to_the_end()

    async def _begin(self, beginning: str | None) -> None:
        """Find the position to begin at. If the history is not available, show the operation's snapshot."""
        operation = await self._store.get(self._id)
        self._view.summary(operation)
        if beginning == "start":
            return
        if beginning is None:
            await self._show_snapshot(None)
            return
        page = await event_log.after(self._store, self._id, beginning, 1)
        if page.reset and parse_position(beginning) < parse_position(operation.position):
            # It may be any time, and not the position of an event: then nothing is lost if the log reaches back to it.
            last = await event_log.last_before(self._store, self._id, beginning)
            if last is not None:
                self._position = last.position.decode()
                return
        if page.reset:
            await self._show_snapshot(page.reset)
            return
        self._position = beginning
        self._ended = page.at is not None and page.at.type == END

    async def _to_the_end(self) -> None:
        """Show every event until the end. If Redis becomes unavailable, wait for it."""
        away_since: float | None = None
        tries, reset = 0, None
        while not self._ended:
            try:
                if reset is not None:
                    await self._show_snapshot(reset)
                    reset = None
                    continue
                async for event in event_log.follow(self._store, self._id, self._position):
                    self._view.event(event)
                    self._position = event.position.decode()
                    away_since, tries = None, 0
                return
            except HistoryLost as error:
                reset = str(error)
            except StorageUnavailable as error:
                if away_since is None:
                    away_since = time.monotonic()
                    print_error(f"{error.detail}; retrying for {PATIENCE_S} s")
                elif time.monotonic() - away_since > PATIENCE_S:
                    raise
                await asyncio.sleep(backoff_s(tries))
                tries += 1

    async def _show_snapshot(self, reset: str | None) -> None:
        operation = await self._store.get(self._id)
        self._view.snapshot(operation, reset)
        self._position, self._ended = operation.position, operation.done
