"""`cancel`: ask an operation's worker to stop, or end the operation."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from progress_broker.model.operation import NewCancel, Operation
from progress_broker.model.validation import validated
from progress_broker.queries.fields import Pairs
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.commands.many.acting import Ids, Options, act_on_many, act_on_one, is_one, with_many
from progress_cli.operation_options import AsJson
from progress_cli.output import format


@with_many
def cancel(
    settings: Settings,
    ids: Ids = None,
    query: Pairs = (),
    reason: Annotated[
        str | None, typer.Option(help="The reason, which the worker and all watchers see: 1,024 characters at most.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="End the operation now. Later updates from its worker are rejected.")
    ] = False,
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Ask the worker of an operation, and the workers of its children, to stop. They see who asked.

    An operation that no worker has started ends at once. An operation that has ended does not change. Several
    operations are named, or chosen by a query; then it asks before it does anything.
    """
    validated(NewCancel, {"reason": reason})
    if options.dry_run or ids is None or not is_one(ids, query):
        act_on_many(
            settings, ids or (), query, options, lambda many: many.cancel(reason=reason, force=force), "cancelled"
        )
    (id,) = ids
    operation, changed, now = asyncio.run(_cancel(settings, id, reason, force))
    if as_json:
        typer.echo(operation.model_dump_json())
    else:
        typer.echo(f"{operation.id}: {_became(operation, changed, force, now)}")


def _became(operation: Operation, changed: bool, force: bool, now: datetime) -> str:
    """Return a description of what the cancel did."""
    if not changed and operation.done:
        return f"already {operation.status}"
    if not changed:
        ignored = "; its worker does not stop, end it with --force" if format.ignored(operation, now) else ""
        return f"already cancelling: {format.describe_cancel(operation.cancel)}{ignored}"
    if not operation.done:
        return operation.status.value
    if operation.started_at is None:
        return f"not started yet, now {operation.status}"
    return f"{'ended by force' if force else 'asked to stop and has ended'}: {operation.status}"


async def _cancel(settings: Settings, id: str, reason: str | None, force: bool) -> tuple[Operation, bool, datetime]:
    async with connect.client(settings) as client, connect.operators(settings) as operators:
        before, many = await client.get(id), operators.many
        said = ": ".join(filter(None, ("by force" if force else "", reason)))
        await act_on_one(many, many.cancel(reason=reason, force=force), id, said)
        after = await client.get(id)
        changed = (before.done, before.cancel_requested) != (after.done, after.cancel_requested)
        return after, changed, await client.now()
