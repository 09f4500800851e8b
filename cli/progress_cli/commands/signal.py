"""`signal`: send a message to an operation's worker, other than a cancel."""

from typing import Annotated

import orjson
import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import NewSignal
from progress_broker.model.validation import read_json, validated
from progress_broker.queries.fields import Pairs
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.commands.many.acting import Options, act_on_many, act_on_one, is_one, with_many
from progress_cli.operation_options import AsJson
from progress_cli.output import format


@with_many
def signal(
    settings: Settings,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID...|-] TYPE",
            help="Operations, or `-` for ids from standard input; and a type that the workers know, such as pause.",
        ),
    ],
    query: Pairs,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="The data of the signal.")] = None,
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Send a signal to an operation's worker, such as `pause`.

    The worker decides what to do with it. To stop the work, use `cancel`. Several operations are named, or chosen by a
    query; then it asks before it does anything.
    """
    *ids, type = words
    if not (ids or query):
        raise InvalidInput(f"name an operation, or choose some by options, before the type {type!r}", field="type")
    sent = _signal(type, data)
    if options.dry_run or not is_one(ids, query):
        act_on_many(settings, ids, query, options, lambda many: many.signal(sent), "signalled")
    (id,) = ids
    connect.ask(settings, lambda operators: act_on_one(operators.many, operators.many.signal(sent), id, sent.type))
    if as_json:
        by = caller() if settings.url is None else None  # a server says itself who sent it, if it knows
        typer.echo(orjson.dumps({"id": id, **sent.model_dump(), "by": by}).decode())
    else:
        typer.echo(f"{id}: sent {format.plain(sent.type)}")


def _signal(type: str, data: str | None) -> NewSignal:
    if type == "cancel":
        raise InvalidInput("`cancel` is not a signal type; use `progress-broker cancel ID`", field="type")
    value = None if data is None else read_json(data.encode("utf-8", "surrogateescape"))
    return validated(NewSignal, {"type": type, "data": value})
