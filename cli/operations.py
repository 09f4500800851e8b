"""`ls`, `show` and `cancel`: operations as they stand."""

import asyncio
from typing import Annotated

import typer

from broker.listing import Filters
from broker.models import Operation, Status
from broker.settings import Settings
from broker.store import Store
from cli import connect, show_text
from cli.options import CLIENT, with_settings

Id = Annotated[str, typer.Argument(metavar="ID", help="The operation's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: one object a line.")]

_PAGE = 200


@with_settings(*CLIENT)
def ls(
    settings: Settings,
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only those of this kind.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only this operation's children.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List operations, newest change first."""
    filters = Filters(status=status, owner=owner, kind=kind, tag=tag, parent=parent)
    operations = asyncio.run(_find(connect.locate(settings), filters, limit))
    if as_json:
        for operation in operations:
            typer.echo(operation.model_dump_json())
    else:
        show_text.listing(operations)


@with_settings(*CLIENT)
def show(settings: Settings, id: Id, as_json: AsJson = False) -> None:
    """Show one operation: its state, its progress, and how it ended."""
    operation = asyncio.run(_get(connect.locate(settings), id))
    if as_json:
        typer.echo(operation.model_dump_json())
    else:
        show_text.card(operation)


@with_settings(*CLIENT)
def cancel(
    settings: Settings,
    id: Id,
    reason: Annotated[str | None, typer.Option(help="Why; its worker and its watchers are told.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask an operation's worker to stop. One that has ended stays as it is."""
    operation, changed = asyncio.run(_cancel(connect.locate(settings), id, reason))
    if as_json:
        typer.echo(operation.model_dump_json())
    else:
        had = "" if changed else "already " if operation.status is Status.CANCELLING else "had ended before: "
        typer.echo(f"{operation.id}: {had}{operation.status}")


async def _find(settings: Settings, filters: Filters, limit: int) -> list[Operation]:
    found: list[Operation] = []
    cursor: str | None = None
    async with await Store.open(settings) as store:
        while True:
            page, cursor = await store.find(filters, limit=min(_PAGE, limit - len(found)), cursor=cursor)
            found += page
            if cursor is None or len(found) >= limit:
                return found


async def _get(settings: Settings, id: str) -> Operation:
    async with await Store.open(settings) as store:
        return await store.get(id)


async def _cancel(settings: Settings, id: str, reason: str | None) -> tuple[Operation, bool]:
    async with await Store.open(settings) as store:
        return await store.cancel(id, reason=reason)
