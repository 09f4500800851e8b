"""`streams`: list the open streams of all replicas."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from progress_broker.replicas.streams import MOST, OpenStream, StreamFilter
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_cli.output import format
from progress_cli.output.formats import Column, Format, Output, Printer, Shape
from progress_cli.output.watching import Watch, Write, show


def _seconds(value: float | None) -> str:
    return "" if value is None else format.duration(value)


SHAPE = Shape[OpenStream](
    columns=(
        Column("CONNECTION", lambda it: it.connection),
        Column("OPERATION", lambda it: it.operation),
        Column("PRINCIPAL", lambda it: it.principal),
        Column("ADDRESS", lambda it: it.address),
        Column("STATE", lambda it: it.state if it.slow_s is None else f"{it.state}, slow"),
        Column("AGE", lambda it: it.age_s, _seconds),
        Column("OUTLET", lambda it: it.outlet, wide=True),
        Column("OPERATIONS", lambda it: it.operations, format.number, wide=True),
        Column("SLOW", lambda it: it.slow_s, _seconds, wide=True),
    ),
    name=lambda it: it.connection,
    to_json=lambda it: it.model_dump(mode="json"),
)


@with_settings(*READER)
def streams(
    settings: Settings,
    operation: Annotated[str | None, typer.Option(help="Only streams of this one operation.")] = None,
    principal: Annotated[str | None, typer.Option(help="Only streams of this principal.")] = None,
    address: Annotated[str | None, typer.Option(help="Only streams of this client address.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of streams.")] = 1_000,
    output: Output = Format.TABLE,
    watch: Watch = False,
) -> None:
    """List the open streams of all replicas: who follows what, from where, and whether its client is slow."""
    wanted = StreamFilter(operation=operation, principal=principal, address=address)

    async def print_all(write: Write, silent: set[str]) -> bool:
        shown = 0
        with Printer(SHAPE, output, write) as printer:
            async for stream in _all(settings, wanted, min(limit + 1, MOST), silent):
                if shown == limit:
                    return True
                printer.add(stream)
                shown += 1
        return False

    def draw(write: Write) -> None:
        silent: set[str] = set()
        if asyncio.run(print_all(write, silent)):
            print_info(f"{limit} shown, there are more: use a larger --limit")
        if silent:
            print_info(f"streams are missing in this list: replica {', '.join(sorted(silent))} did not answer")

    show(draw, watch=watch)


async def _all(settings: Settings, wanted: StreamFilter, page: int, silent: set[str]) -> AsyncIterator[OpenStream]:
    """Yield the streams page by page, and add the replicas that did not answer to `silent`."""
    async with connect.operators(settings) as operators:
        cursor: str | None = None
        while True:
            found = await operators.admin.streams(wanted, limit=page, cursor=cursor)
            silent.update(found.silent)
            for stream in found.streams:
                yield stream
            cursor = found.next_cursor
            if cursor is None:
                return
