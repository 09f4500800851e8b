"""`backup` and `restore`: all operations, in a folder or a bucket."""

import asyncio
from typing import Annotated

import typer

from progress_broker.archiving.backup import BackupSource, back_up, check
from progress_broker.archiving.stores import open_store
from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import ImportOptions, OnConflict, Outcome, Unfinished
from progress_cli import connect
from progress_cli.exit_codes import REJECTED, print_info
from progress_cli.options import READER, with_settings
from progress_cli.output.formats import Format, Output, Printer
from progress_cli.output.transfer import OUTCOME, Counts, Outcomes, shown

Place = Annotated[str, typer.Argument(metavar="FOLDER|URL", help="A folder, or a bucket such as `s3://bucket/path`.")]


@with_settings(*READER)
def backup(settings: Settings, place: Place) -> None:
    """Write all operations to a folder or a bucket, each as it is at one moment.

    The backup is whole when its `manifest.json` is there. Use another folder for each.
    """
    counts = Counts()
    with shown("Backing up", counts):
        asyncio.run(_back_up(settings, place, counts))
    print_info(f"{counts} in {place}")


@with_settings(*READER)
def restore(
    settings: Settings,
    place: Place,
    check_only: Annotated[
        bool, typer.Option("--check", help="Only read all of it, and say whether it is whole.")
    ] = False,
    on_conflict: Annotated[
        OnConflict, typer.Option(help="What to do with an operation whose id another one has.")
    ] = OnConflict.FAIL,
    unfinished: Annotated[
        Unfinished, typer.Option(help="What to do with one that has not ended: keep without a lease, end, or refuse.")
    ] = Unfinished.KEEP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come of each operation.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Store the operations of a backup, each whole or not at all. All of the backup is checked first.

    What is there already is skipped, so it may be repeated. The exit code is 2 if any was refused, or not stored
    because of a conflict.
    """
    counts = Counts()
    with shown("Checking", counts):
        asyncio.run(check(BackupSource(open_store(place)), counts.add))
    if check_only:
        print_info(f"{counts} in {place}: the backup is whole")
        return
    outcomes = Outcomes()
    options = ImportOptions(on_conflict=on_conflict, unfinished=unfinished, dry_run=dry_run)
    with shown("Restoring", outcomes), Printer(OUTCOME, output) as printer:
        asyncio.run(_restore(settings, place, options, outcomes, printer))
    print_info(f"{outcomes}{', if they were restored' if dry_run else ''}")
    if outcomes.failed:
        raise typer.Exit(REJECTED)


async def _back_up(settings: Settings, place: str, counts: Counts) -> None:
    async with connect.operators(settings) as operators:
        await back_up(operators.source(Filters()), open_store(place), lambda end: counts.add(end.events))


async def _restore(
    settings: Settings, place: str, options: ImportOptions, outcomes: Outcomes, printer: Printer[Outcome]
) -> None:
    async with connect.operators(settings) as operators:
        async for outcome in operators.target().store(BackupSource(open_store(place)), options):
            outcomes.add(outcome.result)
            if printer.format is not Format.TABLE or outcome.result in Outcomes.FAILED:
                printer.add(outcome)
