"""`ls`, `show` and `cancel`: operations as they stand."""

import asyncio
from typing import Annotated

import typer

from progress_broker.model.operation import Operation, Status
from progress_broker.operations.listing import Filters
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.options import CLIENT, with_settings
from progress_cli.output import format, tables

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
        tables.listing(operations)


@with_settings(*CLIENT)
def show(settings: Settings, id: Id, as_json: AsJson = False) -> None:
    """Show one operation: its state, its progress and its children's, and how it ended."""
    operation = asyncio.run(_get(connect.locate(settings), id))
    if as_json:
        typer.echo(operation.model_dump_json())
    else:
        tables.card(operation)


@with_settings(*CLIENT)
def cancel(
    settings: Settings,
    id: Id,
    reason: Annotated[str | None, typer.Option(help="Why; its worker and its watchers are told.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="End it now, whatever its worker does; that one is refused from then on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask an operation's worker, and those of its children, to stop; they are told who asks.

    One that no worker has begun ends at once, and one that has ended stays as it is.
    """
    operation, changed = asyncio.run(_cancel(connect.locate(settings), id, reason, force))
    if as_json:
        typer.echo(operation.model_dump_json())
    else:
        typer.echo(f"{operation.id}: {_became(operation, changed, force)}")


def _became(operation: Operation, changed: bool, force: bool) -> str:
    """Return what a cancel did."""
    if not changed and operation.done:
        return f"had ended before: {operation.status}"
    if not changed:
        ignored = "; its worker ignores that, --force ends it" if format.ignored(operation) else ""
        return f"already cancelling: {format.asked(operation.cancel)}{ignored}"
    if not operation.done:
        return operation.status.value
    if operation.started_at is None:
        return f"had not begun: {operation.status}"
    return f"{'ended by force' if force else 'asked to stop, and has ended'}: {operation.status}"


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
        return await store.get(id, list_children=True)


async def _cancel(settings: Settings, id: str, reason: str | None, force: bool) -> tuple[Operation, bool]:
    async with await Store.open(settings) as store:
        return await store.cancel(id, reason=reason, by=caller(), force=force)
