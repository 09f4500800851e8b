"""`cancel`: have an operation's worker stop, or end it."""

import asyncio
from typing import Annotated

import typer

from progress_broker.model.operation import Operation
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.operation_options import AsJson, Id
from progress_cli.options import CLIENT, with_settings
from progress_cli.output import format


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


async def _cancel(settings: Settings, id: str, reason: str | None, force: bool) -> tuple[Operation, bool]:
    async with await Store.open(settings) as store:
        return await store.cancel(id, reason=reason, by=caller(), force=force)
