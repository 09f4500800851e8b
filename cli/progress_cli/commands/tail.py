"""`tail`: follow an operation to its end. The exit code tells how the operation ended."""

import asyncio
import logging
import os
import stat
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Annotated, Any

import typer

from progress_broker.model.operation import Status
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import CANCELLED, FAILED, OK
from progress_cli.operation_options import AsJson, Id
from progress_cli.options import READER, with_settings
from progress_cli.output.live import View, choose_view
from progress_client.async_client import AsyncClient

OUTCOMES = {Status.SUCCEEDED: OK, Status.FAILED: FAILED, Status.CANCELLED: CANCELLED}
"""The exit codes."""


@with_settings(*READER)
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
    logging.basicConfig(format="progress-broker: %(message)s", level=logging.WARNING)
    status = asyncio.run(_tail(settings, id, beginning, as_json))
    raise typer.Exit(OUTCOMES[status])


async def _tail(settings: Settings, id: str, beginning: str | None, as_json: bool) -> Status:
    async with connect.client(settings) as client:
        operation = await client.get(id)
        with choose_view(as_json) as view:
            view.summary(operation)
            await while_read(_show(client, id, beginning, view))
        return (await client.get(id)).status


async def _show(client: AsyncClient, id: str, beginning: str | None, view: View) -> None:
    async with aclosing(client.watch(id, after=beginning)) as events:
        async for event in events:
            view.event(event)


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
