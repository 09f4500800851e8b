"""`drain`: have a replica send its clients to the others."""

from typing import Annotated

import typer

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

    drained = connect.ask(settings, lambda operators: operators.admin.drain(replica, force=force))
    typer.echo(f"replica {drained.replica} sends away its clients, with {format.counted(drained.streams, 'stream')}")
