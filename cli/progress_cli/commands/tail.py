"""`tail`: follow an operation to its end. The exit code tells how the operation ended."""

import asyncio
import logging
import os
import stat
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Annotated, Any, TypeVar

import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import Status
from progress_broker.model.payloads import Level
from progress_broker.queries.fields import Pairs
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.commands.many.following import Shown, follow_many, pattern_of
from progress_cli.exit_codes import CANCELLED, FAILED, OK
from progress_cli.operation_options import AsJson
from progress_cli.options import READER, with_settings
from progress_cli.output.live import View, choose_view
from progress_cli.query_options import with_filters
from progress_client.async_client import AsyncClient

T = TypeVar("T")

OUTCOMES = {Status.SUCCEEDED: OK, Status.FAILED: FAILED, Status.CANCELLED: CANCELLED}
"""The exit codes."""


@with_settings(*READER)
@with_filters()
def tail(
    settings: Settings,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Operations; or choose them by options.")
    ] = None,
    query: Pairs = (),
    beginning: Annotated[
        str | None,
        typer.Option("--from", metavar="start|POSITION", help="Replay all stored events, or those after a position."),
    ] = None,
    types: Annotated[
        str | None, typer.Option(metavar="TYPES", help="Only events of these types, separated by commas.")
    ] = None,
    level: Annotated[Level | None, typer.Option(help="Only log lines that are as severe, or more.")] = None,
    grep: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only events whose line has a part that matches.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Also follow operations that come later and match.")
    ] = False,
    most: Annotated[int, typer.Option("--max", min=1, help="How many operations to follow at a time.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Follow an operation until it ends: show its state now, and each event as it happens.

    The exit code is 0 if the operation succeeded, 1 if it failed, and 3 if it was cancelled. Several operations are
    followed with their ids before each line: those that are named, or those of a query that have not ended.
    """
    logging.basicConfig(format="progress-broker: %(message)s", level=logging.WARNING)
    if query or len(ids or ()) != 1 or (types, level, grep, follow) != (None, None, None, False):
        if not (ids or query):
            raise InvalidInput("name operations, or choose them by options, such as --kind import")
        if ids and (query or follow):
            raise InvalidInput("name operations, or choose them by options, and not both")
        wanted = None if types is None else frozenset(types.split(","))
        shown = Shown(wanted, level, pattern_of(grep), as_json)
        work = follow_many(settings, tuple(ids or ()), query, shown, on=follow, most=most, after=beginning)
        code = asyncio.run(while_read(work))
        if code or len(ids or ()) != 1:
            raise typer.Exit(code)
        raise typer.Exit(OUTCOMES[asyncio.run(_status(settings, (ids or [""])[0]))])
    id = (ids or [""])[0]
    status = asyncio.run(_tail(settings, id, beginning, as_json))
    raise typer.Exit(OUTCOMES[status])


async def _tail(settings: Settings, id: str, beginning: str | None, as_json: bool) -> Status:
    async with connect.client(settings) as client:
        operation = await client.get(id)
        with choose_view(as_json) as view:
            view.summary(operation)
            await while_read(_show(client, id, beginning, view))
        return (await client.get(id)).status


async def _status(settings: Settings, id: str) -> Status:
    async with connect.client(settings) as client:
        return (await client.get(id)).status


async def _show(client: AsyncClient, id: str, beginning: str | None, view: View) -> None:
    async with aclosing(client.watch(id, after=beginning)) as events:
        async for event in events:
            view.event(event)


async def while_read(work: Coroutine[Any, Any, T]) -> T:
    """Do the work, and return its result. If the reader of our output closes its end, raise `BrokenPipeError`, also if
    nothing is written."""
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
        return task.result()
    finally:
        if watched:
            loop.remove_reader(output)
        await end(task)
