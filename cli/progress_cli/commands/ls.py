"""`ls`: list operations, or count them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import orjson
import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import Operation
from progress_broker.queries.choice import Order
from progress_broker.queries.counts import Counts
from progress_broker.queries.fields import Pairs
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.operation_options import AsJson
from progress_cli.options import READER, with_settings
from progress_cli.output import format, tables
from progress_cli.output.formats import Format, Output, Printer
from progress_cli.output.operations import OPERATIONS
from progress_cli.query_options import with_filters
from progress_client.backend import warn_if_partial
from progress_client.operators.finding import Finder

_PAGE = 200


@with_settings(*READER)
@with_filters()
def ls(
    settings: Settings,
    query: Pairs,
    sort: Annotated[
        Order | None, typer.Option(help="The newest first: by last change (the default), creation or end.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of operations.")] = 50,
    all: Annotated[bool, typer.Option("--all", help="All that match, by creation unless --sort says.")] = False,
    counts: Annotated[bool, typer.Option("--counts", help="Count operations by status, and list none.")] = False,
    output: Output = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """List operations, the most recently changed first.

    For example `progress-broker ls --status failed,cancelled --since 1h`, or `progress-broker ls --idle 10m -o name`.
    """
    form = Format.JSONL if as_json else output
    if counts:
        found = connect.ask(settings, lambda operators: operators.finder.counts(query))
        warn_if_partial(found.lanes_away)
        _print_counts(found, form)
        return
    order = sort or (Order.CREATED if all else Order.CHANGED)
    if form is Format.TABLE:
        asyncio.run(_table(settings, query, order, None if all else limit))
    else:
        asyncio.run(_print(settings, query, order, None if all else limit, form))


async def _table(settings: Settings, query: Pairs, order: Order, limit: int | None) -> None:
    """Print a table for people, and on standard error whether there are more."""
    async with connect.operators(settings) as operators:
        most = None if limit is None else limit + 1
        found = [operation async for operation in _find(operators.finder, query, order, most)]
        tables.listing(found[:limit], await operators.now())
    if limit is not None and len(found) > limit:
        print_info(f"{limit} shown, there are more: use a larger --limit")


async def _print(settings: Settings, query: Pairs, order: Order, limit: int | None, form: Format) -> None:
    async with connect.operators(settings) as operators:
        with Printer(OPERATIONS, form) as printer:
            async for operation in _find(operators.finder, query, order, limit):
                printer.add(operation)


async def _find(finder: Finder, query: Pairs, order: Order, limit: int | None) -> AsyncIterator[Operation]:
    """Yield the operations that match, page by page."""
    cursor, left, told = None, limit, False
    while left is None or left > 0:
        page = await finder.page(query, order=order, limit=_PAGE if left is None else min(_PAGE, left), cursor=cursor)
        if not told and page.lanes_away:
            warn_if_partial(page.lanes_away)
            told = True
        for operation in page.operations:
            yield operation
        cursor, left = page.next_cursor, None if left is None else left - len(page.operations)
        if cursor is None:
            return


def _print_counts(found: Counts, form: Format) -> None:
    numbers = {status.value: number for status, number in found.statuses.items()}
    if form in (Format.JSON, Format.JSONL):
        body = {"counts": numbers, "total": found.total, "approximate": found.approximate}
        typer.echo(orjson.dumps(body).decode())
    elif form in (Format.TABLE, Format.WIDE):
        rows = [(name, format.number(number)) for name, number in (numbers | {"total": found.total}).items()]
        for line in tables.aligned([("STATUS", "NUMBER"), *rows]):
            typer.echo(line)
        if found.approximate:
            print_info("the numbers are estimated")
    else:
        raise InvalidInput(f"--counts can't be printed as {form}: use table, json or jsonl", field="output")
