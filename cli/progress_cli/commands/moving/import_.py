"""`import`: store the operations of an export."""

import asyncio
from typing import Annotated, Any

import typer

from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import ImportOptions, OnConflict, Outcome, Positions, Unfinished
from progress_broker.transfer.files.local import PIPE, check_file, open_source
from progress_cli import connect
from progress_cli.exit_codes import REJECTED, print_error, print_info
from progress_cli.options import READER, with_settings
from progress_cli.output.format import plain
from progress_cli.output.formats import Format, Output, Printer
from progress_cli.output.transfer import OUTCOME, Outcomes, shown

_SUFFIX = "suffix="


@with_settings(*READER)
def import_(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file of the export; `-` is standard input.")],
    on_conflict: Annotated[
        str,
        typer.Option(
            metavar="fail|skip|replace|suffix=TEXT",
            help="What to do with an operation whose id another one has. With `suffix=-2`, all ids get this suffix.",
        ),
    ] = "fail",
    unfinished: Annotated[
        Unfinished,
        typer.Option(help="What to do with one that has not ended: refuse, end as failed, or keep without a lease."),
    ] = Unfinished.REFUSE,
    positions: Annotated[
        Positions,
        typer.Option(help="Keep the positions of events, or publish them as new events, which clients are told of."),
    ] = Positions.KEEP,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of a file that is damaged or cut short, import what is whole.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come of each operation.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Store the operations of an export, each whole or not at all, with their ids, positions and times.

    One that is there already with the same events is skipped. A table names only those that were not stored; `-o jsonl`
    and others have all. The exit code is 2 if any was refused, or not stored because of a conflict.
    """
    options = _options(on_conflict, unfinished=unfinished, positions=positions, dry_run=dry_run)
    outcomes = Outcomes()
    with shown("Checking" if dry_run else "Importing", outcomes), Printer(OUTCOME, output) as printer:
        damage = asyncio.run(_import(settings, file, partial, options, outcomes, printer))
    for line in damage:
        print_error(line)
    print_info(f"{outcomes}{', if it were imported' if dry_run else ''}")
    if outcomes.failed or damage:
        raise typer.Exit(REJECTED)


def _options(on_conflict: str, **given: Any) -> ImportOptions:
    if on_conflict.startswith(_SUFFIX) and len(on_conflict) > len(_SUFFIX):
        return ImportOptions(suffix=on_conflict.removeprefix(_SUFFIX), **given)
    try:
        return ImportOptions(on_conflict=OnConflict(on_conflict), **given)
    except ValueError:
        raise InvalidInput(
            f"--on-conflict {plain(on_conflict[:40])}: expected fail, skip, replace or suffix=TEXT", field="on_conflict"
        ) from None


async def _import(
    settings: Settings, file: str, partial: bool, options: ImportOptions, outcomes: Outcomes, printer: Printer[Outcome]
) -> list[str]:
    """Import a file; return what was damaged in it, with `partial`."""
    if file != PIPE and not partial:
        await check_file(file)  # so that a file which is damaged changes nothing
    source = open_source(file, whole=not partial)
    try:
        async with connect.operators(settings) as operators:
            async for outcome in operators.target().store(source, options):
                outcomes.add(outcome.result)
                if printer.format is not Format.TABLE or outcome.result in Outcomes.FAILED:
                    printer.add(outcome)
    except BrokerError:
        if outcomes.total:
            print_info(f"{outcomes} before the error")
        raise
    return list(source.damage)
