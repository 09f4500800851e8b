"""`show`: show one operation."""

import asyncio
from datetime import datetime

import typer

from progress_broker.model.operation import Operation
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.operation_options import AsJson, Id
from progress_cli.options import READER, with_settings
from progress_cli.output import tables


@with_settings(*READER)
def show(settings: Settings, id: Id, as_json: AsJson = False) -> None:
    """Show one operation: its status, its progress and that of its children, and how it ended."""
    operation, now = asyncio.run(_get(settings, id))
    if as_json:
        typer.echo(operation.model_dump_json())
    else:
        tables.card(operation, now)


async def _get(settings: Settings, id: str) -> tuple[Operation, datetime]:
    async with connect.client(settings) as client:
        return await client.get(id, list_children=True), await client.now()
