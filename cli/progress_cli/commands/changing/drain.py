"""`drain`: have a replica send its clients to the others."""

import asyncio
from typing import Annotated

import typer

from progress_broker.replicas.changes import Drained
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.options import READER, with_settings
from progress_cli.output import format


@with_settings(*READER)
def drain(
    settings: Settings,
    replica: Annotated[str, typer.Argument(metavar="REPLICA", help="The id of the replica: `replicas` lists them.")],
    force: Annotated[bool, typer.Option("--force", help="Drain it also if no other replica is ready.")] = False,
) -> None:
    """Have a replica send all its clients to the others. It takes no new ones until it is started again."""

    async def ask() -> Drained:
        async with connect.administration(settings) as administration:
            return await administration.drain(replica, force=force)

    drained = asyncio.run(ask())
    typer.echo(f"replica {drained.replica} sends away its clients, with {format.counted(drained.streams, 'stream')}")
