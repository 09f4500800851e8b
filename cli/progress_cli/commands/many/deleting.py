"""`rm` and `purge`: delete operations."""

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Annotated

import typer

from progress_broker.errors import InvalidInput, StorageUnavailable
from progress_broker.queries.choice import Order
from progress_broker.queries.fields import Pairs
from progress_broker.settings import Settings
from progress_broker.storage.lanes import shown
from progress_cli import connect
from progress_cli.commands.many.acting import Ids, Options, act_on_many, is_one, with_many

_PAGE = 200


@with_many
def rm(
    settings: Settings,
    ids: Ids = None,
    query: Pairs = (),
    force: Annotated[bool, typer.Option("--force", help="Also those that have not ended.")] = False,
    *,
    options: Options,
) -> None:
    """Delete operations that have ended, by their ids or by a query. Their ids can't be used again for a while.

    Deleting frees memory, also where Redis is full.
    """
    options = options._replace(yes=options.yes or is_one(ids, query))
    act_on_many(settings, ids or (), query, options, lambda many: many.delete(force=force), "deleted")


class Per(StrEnum):
    """Of what the newest are kept."""

    KIND = "kind"
    OWNER = "owner"


@with_many
def purge(
    settings: Settings,
    query: Pairs,
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, metavar="N", help="Keep those N that ended last.")
    ] = None,
    per: Annotated[Per | None, typer.Option("--per", help="Keep N of each kind, or of each owner.")] = None,
    *,
    options: Options,
) -> None:
    """Delete the operations of a query that have ended, such as `--ended-until 7d`, or `--kind import`.

    What has not ended stays, whatever the query says.
    """
    if per is not None and keep is None:
        raise InvalidInput("--per needs --keep N: how many of each to keep", field="per")
    ids = list[str]()
    if keep is not None:
        ids, query = asyncio.run(_but_newest(settings, query, keep, per)), ()
        if not ids:
            typer.echo("0 deleted")
            return
    act_on_many(settings, ids, query, options, lambda many: many.delete(force=False), "deleted")


async def _but_newest(settings: Settings, query: Pairs, keep: int, per: Per | None) -> list[str]:
    """Return the operations that match and have ended, without the newest of each group."""
    older: list[str] = []
    seen: Counter[str | None] = Counter()
    cursor = None
    async with connect.operators(settings) as operators:
        while True:
            page = await operators.finder.page(query, order=Order.ENDED, limit=_PAGE, cursor=cursor)
            if page.lanes_away:  # the newest may be there
                raise StorageUnavailable(f"nothing was done: {shown(page.lanes_away)} can't be reached now")
            for operation in page.operations:
                group = None if per is None else operation.kind if per is Per.KIND else operation.owner
                seen[group] += 1
                if seen[group] > keep:
                    older.append(operation.id)
            cursor = page.next_cursor
            if cursor is None:
                return older
