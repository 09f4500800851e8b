"""`rm` and `purge`: delete operations."""

from typing import Annotated

import typer

from progress_broker.queries.fields import Pairs
from progress_broker.settings import Settings
from progress_cli.commands.many.acting import MOST, RPS, DryRun, Ids, Most, Options, Rps, Yes, act_on_many
from progress_cli.options import READER, with_settings
from progress_cli.query_options import with_filters


@with_settings(*READER)
@with_filters()
def rm(
    settings: Settings,
    ids: Ids = None,
    query: Pairs = (),
    force: Annotated[bool, typer.Option("--force", help="Also those that have not ended.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    rps: Rps = RPS,
    most: Most = MOST,
) -> None:
    """Delete operations that have ended, by their ids or by a query. Their ids can't be used again for a while.

    Deleting frees memory, also where Redis is full.
    """
    options = Options(dry_run, yes or _is_one(ids, query), rps, most)
    act_on_many(settings, ids or (), query, options, lambda many: many.delete(force=force), "deleted")


@with_settings(*READER)
@with_filters()
def purge(
    settings: Settings,
    query: Pairs,
    dry_run: DryRun = False,
    yes: Yes = False,
    rps: Rps = RPS,
    most: Most = MOST,
) -> None:
    """Delete the operations of a query that have ended, such as `--ended-until 7d`, or `--kind import`.

    What has not ended stays, whatever the query says.
    """
    options = Options(dry_run, yes, rps, most)
    act_on_many(settings, (), query, options, lambda many: many.delete(force=False), "deleted")


def _is_one(ids: list[str] | None, query: Pairs) -> bool:
    return len(ids or ()) == 1 and ids != ["-"] and not query
