"""`audit`: show who changed what."""

import asyncio
import time
from typing import Annotated

import typer

from progress_broker.access.audit import AuditFilter, AuditRecord
from progress_broker.errors import InvalidInput
from progress_broker.queries.times import read_time
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_cli.output.formats import Column, Format, Output, Printer, Shape

_PAGE = 500

SHAPE = Shape[AuditRecord](
    columns=(
        Column("TIME", lambda it: it.time, lambda moment: moment.astimezone().isoformat(" ", "seconds")),
        Column("WHO", lambda it: it.who),
        Column("ACTION", lambda it: it.action),
        Column("TARGET", lambda it: it.target),
        Column("RESULT", lambda it: it.result),
        Column("VIA", lambda it: it.via),
        Column("ADDRESS", lambda it: it.address),
        Column("DETAIL", lambda it: it.detail),
        Column("REQUEST", lambda it: it.request, wide=True),
    ),
    name=lambda it: it.target,
    to_json=lambda it: it.model_dump(mode="json"),
)


@with_settings(*READER)
def audit(
    settings: Settings,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only entries from this time on: 1h ago, 2026-11-30T14:05:00Z.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as `cancel`.")] = None,
    who: Annotated[str | None, typer.Option(help="Only what this principal did.")] = None,
    target: Annotated[str | None, typer.Option(help="Only what was done to this.")] = None,
    result: Annotated[str | None, typer.Option(help="Only entries with this result: `ok`, or an error code.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of entries.")] = 100,
    output: Output = Format.TABLE,
) -> None:
    """Show who changed what, newest first: cancels, deletions, revocations, kicks, and what was created.

    About 10,000 entries are kept, and as many of created operations, which are kept apart.
    """
    try:
        since_ms = None if since is None else read_time(since, round(time.time() * 1000))
    except ValueError as error:
        raise InvalidInput(f"--since: {error}") from None
    wanted = AuditFilter(action=action, who=who, target=target, result=result, since_ms=since_ms)
    if asyncio.run(_print(settings, wanted, limit, output)):
        print_info(f"{limit} shown, there are more: use a larger --limit")


async def _print(settings: Settings, wanted: AuditFilter, limit: int, output: Format) -> bool:
    """Print the entries; return whether there are more."""
    left, cursor = limit, None
    async with connect.operators(settings) as operators:
        with Printer(SHAPE, output) as printer:
            while True:
                page = await operators.admin.audit(wanted, limit=min(left, _PAGE), cursor=cursor)
                for record in page.entries:
                    printer.add(record)
                left, cursor = left - len(page.entries), page.next_cursor
                if cursor is None or not left:
                    return cursor is not None
