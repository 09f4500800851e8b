"""`signal`: send a message to an operation's worker, other than a cancel."""

import asyncio
from typing import Annotated

import orjson
import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import NewSignal
from progress_broker.model.validation import read_json, validated
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.operation_options import AsJson, Id
from progress_cli.options import CLIENT, with_settings
from progress_cli.output import format


@with_settings(*CLIENT)
def signal(
    settings: Settings,
    id: Id,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="A type that the worker knows, such as pause or resume.")],
    data: Annotated[str | None, typer.Option(metavar="JSON", help="The data of the signal.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a signal to an operation's worker, such as `pause`.

    The worker decides what to do with it. To stop the work, use `cancel`.
    """
    sent, by = _signal(type, data), caller()
    asyncio.run(_send(connect.locate(settings), id, sent, by))
    if as_json:
        typer.echo(orjson.dumps({"id": id, **sent.model_dump(), "by": by}).decode())
    else:
        typer.echo(f"{id}: sent {format.plain(sent.type)}")


def _signal(type: str, data: str | None) -> NewSignal:
    if type == "cancel":
        raise InvalidInput("`cancel` is not a signal type; use `progress-broker cancel ID`", field="type")
    value = None if data is None else read_json(data.encode("utf-8", "surrogateescape"))
    return validated(NewSignal, {"type": type, "data": value})


async def _send(settings: Settings, id: str, signal: NewSignal, by: str) -> None:
    async with await Store.open(settings) as store:
        await store.signal(id, signal, by=by)
