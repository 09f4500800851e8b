"""`ls`: list operations."""

import asyncio
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.metadata import terms
from progress_broker.model.operation import Operation, Status
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.operation_options import AsJson
from progress_cli.options import READER, with_settings
from progress_cli.output import tables

_PAGE = 200


@with_settings(*READER)
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
    search = {"status": status, "owner": owner, "kind": kind, "tag": tag, "parent": parent}
    pairs = dict(_pair(given) for given in metadata or ())
    operations, more, now = asyncio.run(_find(settings, search, pairs, limit))
    if as_json:
        for operation in operations:
            typer.echo(operation.model_dump_json())
    else:
        tables.listing(operations, now)
        if more:
            print_info(f"{limit} shown, there are more: use a larger --limit")


def _pair(given: str) -> tuple[str, str]:
    key, _, value = given.partition("=")
    try:
        list(terms(key, [value]))
    except ValueError as error:
        raise InvalidInput(f"--metadata: {error}", field="metadata") from None
    return key, value


async def _find(
    settings: Settings, search: dict[str, str | None], metadata: dict[str, str], limit: int
) -> tuple[list[Operation], bool, datetime]:
    """Return the operations, whether there are more, and the time by the clock of their times."""
    found: list[Operation] = []
    async with connect.client(settings) as client:
        async with aclosing(client.list(**search, metadata=metadata, page_size=min(_PAGE, limit + 1))) as operations:
            async for operation in operations:
                found.append(operation)
                if len(found) > limit:
                    break
        return found[:limit], len(found) > limit, await client.now()
