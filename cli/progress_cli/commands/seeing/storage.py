"""`storage`: show what takes room in Redis."""

import sys
from typing import Annotated

import typer

from progress_broker.replicas.figures import MOST_LOOKED
from progress_broker.replicas.usage import Share, Storage
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_cli.output import format
from progress_cli.output.formats import Column, Format, Output, Printer, Shape
from progress_client.backend import warn_if_partial
from progress_client.operators.operators import Operators

SHAPE = Shape[Share](
    columns=(
        Column("KIND", lambda it: it.kind),
        Column("STATUS", lambda it: it.status),
        Column("OPERATIONS", lambda it: it.operations, format.number),
        Column("EVENTS", lambda it: it.events, format.number),
        Column("MEMORY", lambda it: it.bytes, lambda size: "" if size is None else f"{size / 1024:,.0f} KiB"),
    ),
    name=lambda it: it.kind,
    to_json=lambda it: it.model_dump(mode="json"),
)


@with_settings(*READER)
def storage(
    settings: Settings,
    sample: Annotated[
        int, typer.Option(min=1, max=MOST_LOOKED, help="How many operations to look at; they are chosen at random.")
    ] = 1_000,
    exact: Annotated[bool, typer.Option("--exact", help="Look at all operations, in Redis itself.")] = False,
    rps: Annotated[
        float, typer.Option("--rps", min=1, help="How many operations to look at per second, with --exact.")
    ] = 1_000.0,
    output: Output = Format.TABLE,
) -> None:
    """Show what takes room in Redis, by kind and status, from a sample of operations, and the longest of them.

    With `-o json` it is what was looked at; a program can scale it up by `operations`.
    """

    def tell(looked: int) -> None:
        if sys.stderr.isatty():
            typer.echo(f"\r{looked:,} operations looked at ", nl=False, err=True)

    async def ask(operators: Operators) -> Storage:
        return await (operators.admin.all_storage(rps, tell) if exact else operators.admin.storage(sample))

    found = connect.ask(settings, ask)
    if exact and sys.stderr.isatty():
        typer.echo(err=True)
    with Printer(SHAPE, output) as printer:
        for share in found.shares:
            printer.add(share)
    print_info(f"looked at {format.number(found.looked)} of {format.counted(found.operations, 'operation')}")
    for operation in found.longest[:3]:
        print_info(f"long: {format.plain(operation.id)} has {format.counted(operation.events, 'event')}")
    warn_if_partial(found.lanes_away)
