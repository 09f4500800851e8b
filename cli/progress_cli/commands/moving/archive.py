"""`archive`: keep the exports of ended operations."""

import asyncio
import logging
from typing import Annotated

import typer

from progress_broker.archiving.archiver import Archiver
from progress_broker.archiving.stores import open_store
from progress_broker.errors import Conflict, StorageUnavailable
from progress_broker.operations.store import Store
from progress_broker.runtime.durations import seconds
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.commands.moving.until_stopped import until_stopped
from progress_cli.exit_codes import FAILED, print_error, print_info
from progress_cli.options import CLIENT, with_settings
from progress_cli.output.format import counted


@with_settings(*CLIENT)
def archive(
    settings: Settings,
    to: Annotated[str, typer.Option(metavar="FOLDER|URL", help="A folder, or a bucket such as `s3://bucket/path`.")],
    once: Annotated[bool, typer.Option("--once", help="Archive what has ended by now, and end.")] = False,
    every: Annotated[str, typer.Option(metavar="DURATION", help="How often to look for what has ended.")] = "10s",
) -> None:
    """Keep the exports of ended operations in a folder or a bucket, before their retention passes.

    It runs beside the servers until Ctrl-C or SIGTERM. `show ID --from` and `replay ID --from` read what it keeps. One
    at a time writes to an archive: a second one waits until it ends, or ends at once with `--once`. To start it again
    goes on where it was.
    """
    logging.basicConfig(format="progress-broker: %(message)s", level=logging.WARNING)
    asyncio.run(_archive(settings, to, once, seconds(every)))


async def _archive(settings: Settings, to: str, once: bool, every_s: float) -> None:
    async with await Store.open(connect.locate(settings)) as store:
        archiver = Archiver(store, open_store(to))
        try:
            if once:
                async with archiver.lease.held():
                    await archiver.pass_once()
            else:
                await until_stopped(_keep_archiving(archiver, every_s))
        finally:
            done = archiver.archived
            failed = f", {done.failed} could not be read" if done.failed else ""
            print_info(f"{counted(done.written, 'operation')} archived, {done.known} were there before{failed}")
    if archiver.archived.failed:
        raise typer.Exit(FAILED)


async def _keep_archiving(archiver: Archiver, every_s: float) -> None:
    while True:
        try:
            async with archiver.lease.held(print_info):
                await archiver.run(every_s)
        except (Conflict, StorageUnavailable) as error:  # the lease was lost, or could not be asked for
            print_error(error.detail)
            await asyncio.sleep(every_s)
