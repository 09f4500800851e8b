"""`ls`: list operations."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.metadata import terms
from progress_broker.model.operation import Operation, Status
from progress_broker.operations.listing import Filters
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.operation_options import AsJson
from progress_cli.options import CLIENT, with_settings
from progress_cli.output import tables

_PAGE = 200


@with_settings(*CLIENT)
def ls(
    settings: Settings,
    status: Annotated[Status | None, typer.Option(help="Only operations with this status.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only operations of this owner.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only operations of this kind.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only operations with this tag.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only children of this operation.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only operations with this metadata; may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of operations.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List operations, the most recently changed first."""
    filters = Filters(status=status, owner=owner, kind=kind, tag=tag, parent=parent, metadata=_terms(metadata))
    operations, more, now = asyncio.run(_find(connect.locate(settings), filters, limit))
    if as_json:
        for operation in operations:
            typer.echo(operation.model_dump_json())
    else:
        tables.listing(operations, now)
        if more:
            print_info(f"{limit} shown, there are more: use a larger --limit")


def _terms(metadata: list[str] | None) -> tuple[str, ...]:
    try:
        return tuple(
            term for pair in metadata or () for term in terms(pair.partition("=")[0], [pair.partition("=")[2]])
        )
    except ValueError as error:
        raise InvalidInput(f"--metadata: {error}", field="metadata") from None


async def _find(settings: Settings, filters: Filters, limit: int) -> tuple[list[Operation], bool, datetime]:
    """Return the operations, whether there are more, and Redis' time."""
    found: list[Operation] = []
    cursor: str | None = None
    async with await Store.open(settings) as store:
        while True:
            page, cursor = await store.find(filters, limit=min(_PAGE, limit + 1 - len(found)), cursor=cursor)
            found += page
            if cursor is None or len(found) > limit:
                return found[:limit], len(found) > limit, await store.now()
