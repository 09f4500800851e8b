"""`backup` and `restore`: all operations, in a folder or a bucket."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from progress_broker.access.audit import AuditEntry, record_once
from progress_broker.archiving.backup import BackupSource, back_up, check
from progress_broker.archiving.callers import read_callers, restore_callers
from progress_broker.archiving.stores import open_store
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import ImportOptions, OnConflict, Outcome, Unfinished
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.exit_codes import REJECTED, print_info
from progress_cli.options import READER, with_settings
from progress_cli.output.formats import Format, Output, Printer
from progress_cli.output.transfer import OUTCOME, Counts, Outcomes, shown

Place = Annotated[str, typer.Argument(metavar="FOLDER|URL", help="A folder, or a bucket such as `s3://bucket/path`.")]


@with_settings(*READER)
def backup(
    settings: Settings,
    place: Place,
    secrets: Annotated[
        bool,
        typer.Option("--secrets", help="Also the secret that signs tickets, revocations, and limits of principals."),
    ] = False,
) -> None:
    """Write all operations to a folder or a bucket, each as it is at one moment.

    The backup is whole when its `manifest.json` is there. Use another folder for each.
    With `--secrets`, whoever can read it can make tickets: files of a folder are for their owner only.
    """
    counts = Counts()
    with _private(secrets), shown("Backing up", counts):
        asyncio.run(_back_up(settings, place, counts, secrets))
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
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Also the secret that signs tickets, revocations, and limits.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come of each operation.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Store the operations of a backup, each whole or not at all. All of the backup is checked first.

    What is there already is skipped, so it may be repeated. The exit code is 2 if any was refused, or not stored
    because of a conflict.
    """
    if secrets:
        connect.locate(settings)  # before anything is stored
    counts = Counts()
    with shown("Checking", counts):
        callers = asyncio.run(_check(place, counts, secrets))
    if check_only:
        print_info(f"{counts} in {place}: the backup is whole")
        return
    outcomes = Outcomes()
    options = ImportOptions(on_conflict=on_conflict, unfinished=unfinished, dry_run=dry_run)
    with shown("Restoring", outcomes), Printer(OUTCOME, output) as printer:
        asyncio.run(_restore(settings, place, options, outcomes, printer))
    print_info(f"{outcomes}{', if they were restored' if dry_run else ''}")
    if callers is not None and not dry_run:
        print_info(asyncio.run(_restore_callers(settings, callers)))
    if outcomes.failed:
        raise typer.Exit(REJECTED)


@contextmanager
def _private(private: bool) -> Iterator[None]:
    """Let files that are made in the block be for their owner only, if that is wanted."""
    before = os.umask(0o077) if private else None
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)


async def _back_up(settings: Settings, place: str, counts: Counts, secrets: bool) -> None:
    callers = None
    if secrets:
        async with await Store.open(connect.locate(settings)) as store:
            callers = await read_callers(store)
    async with connect.operators(settings) as operators:
        source, to = operators.source(Filters()), open_store(place)
        await back_up(source, to, lambda end: counts.add(end.events), callers=callers)


async def _check(place: str, counts: Counts, secrets: bool) -> bytes | None:
    """Read all of a backup; return what it has about callers, if that is wanted."""
    source = BackupSource(open_store(place))
    callers = await source.callers() if secrets else None
    await check(source, counts.add)
    return callers


async def _restore_callers(settings: Settings, callers: bytes) -> str:
    async with await Store.open(connect.locate(settings)) as store:
        detail = str(await restore_callers(store, callers))
        await record_once(store, AuditEntry(caller(), "redis", "restore", "", detail=detail))
    return f"restored: {detail}"


async def _restore(
    settings: Settings, place: str, options: ImportOptions, outcomes: Outcomes, printer: Printer[Outcome]
) -> None:
    async with connect.operators(settings) as operators:
        async for outcome in operators.target().store(BackupSource(open_store(place)), options):
            outcomes.add(outcome.result)
            if printer.format is not Format.TABLE or outcome.result in Outcomes.FAILED:
                printer.add(outcome)
