"""`show`: show one operation."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from progress_broker.archiving.archive import ArchiveSource
from progress_broker.archiving.stores import open_store
from progress_broker.errors import Gone, NotFound
from progress_broker.model.operation import Operation
from progress_broker.settings import Settings
from progress_broker.transfer.state import read_state
from progress_cli import connect
from progress_cli.operation_options import AsJson, Id
from progress_cli.options import READER, with_settings
from progress_cli.output import tables


@with_settings(*READER)
def show(
    settings: Settings,
    id: Id,
    archive: Annotated[
        str | None, typer.Option("--from", metavar="FOLDER|URL", help="Read the operation from this archive.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one operation: its status, its progress and that of its children, and how it ended."""
    operation, now = asyncio.run(_get(settings, id) if archive is None else _get_archived(archive, id))
    if as_json:
        typer.echo(operation.model_dump_json())
    else:
        tables.card(operation, now)


async def _get(settings: Settings, id: str) -> tuple[Operation, datetime]:
    async with connect.client(settings) as client:
        try:
            return await client.get(id, list_children=True), await client.now()
        except (NotFound, Gone) as error:
            error.detail += "; if it was archived, `--from ARCHIVE` shows it"
            raise


async def _get_archived(archive: str, id: str) -> tuple[Operation, datetime]:
    async for copy in ArchiveSource(open_store(archive), [id]).operations():
        return read_state(copy.operation), datetime.now(UTC)
    raise NotFound(f"the archive {archive} has no operation {id}")
