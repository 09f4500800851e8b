"""`archive`: keep the exports of ended operations."""

import asyncio
import logging
from typing import Annotated

import typer

from progress_broker.archiving.archiver import Archiver
from progress_broker.archiving.stores import open_store
from progress_broker.operations.store import Store
from progress_broker.runtime.durations import seconds
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
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

    It runs beside the servers until Ctrl-C. `show ID --from` and `replay ID --from` read what it keeps. One at a time
    writes to an archive. To start it again goes on where it was.
    """
    logging.basicConfig(format="progress-broker: %(message)s", level=logging.WARNING)
    asyncio.run(_archive(settings, to, once, seconds(every)))


async def _archive(settings: Settings, to: str, once: bool, every_s: float) -> None:
    async with await Store.open(connect.locate(settings)) as store:
        archiver = Archiver(store, open_store(to))
        async with archiver.alone():
            try:
                await (archiver.pass_once() if once else archiver.run(every_s))
            finally:
                done = archiver.archived
                print_info(f"{counted(done.written, 'operation')} archived, {done.known} were there before")
