"""`kick`: end streams."""

import asyncio
from typing import Annotated

import typer

from progress_broker.errors import BrokerError
from progress_broker.replicas.streams import Kicked
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import exit_code, print_error
from progress_cli.options import READER, with_settings
from progress_cli.output import format


@with_settings(*READER)
def kick(
    settings: Settings,
    connections: Annotated[
        list[str], typer.Argument(metavar="CONNECTION...", help="The names of the connections: `streams` lists them.")
    ],
    for_good: Annotated[
        bool, typer.Option("--for-good", help="Tell the clients not to come back, which ours and browsers' obey.")
    ] = False,
) -> None:
    """End streams, whichever replicas they are at. Their clients come back with new connections, unless told not to.

    To keep a caller out, revoke its credentials: `auth revoke`.
    """
    failed = asyncio.run(_run(settings, connections, for_good=for_good))
    if failed is not None:
        raise typer.Exit(exit_code(failed))


async def _run(settings: Settings, connections: list[str], *, for_good: bool) -> BrokerError | None:
    """End each, print what came of it, and return the last error."""
    failed = None
    async with connect.operators(settings) as operators:
        for connection in connections:
            try:
                typer.echo(_described(await operators.admin.kick(connection, for_good=for_good)))
            except BrokerError as error:
                print_error(error.detail)
                failed = error
    return failed


def _described(kicked: Kicked) -> str:
    whose = f" of {format.plain(kicked.principal)}" if kicked.principal else ""
    where = f" from {format.plain(kicked.address)}" if kicked.address else ""
    then = "its client was asked to come back" if kicked.returns else "its client was told not to come back"
    return f"{kicked.connection}{whose}{where} is ended, it followed {format.plain(kicked.operation)}: {then}"
