"""`publish`: publish one event or a stream of events from the shell, for work that does not use an SDK."""

import asyncio
from itertools import chain, islice
from typing import Annotated, Any

import typer

from progress_broker.errors import BrokerError
from progress_broker.model.entry import NewEvent, read_publish_request
from progress_broker.model.operation import NewOperation, PublishResult
from progress_broker.model.validation import read_json, validated
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.input.lines import Batches, at_line, read_batches
from progress_cli.operation_options import AsJson, Id, with_new_operation
from progress_cli.options import READER, with_settings
from progress_cli.output.format import counted


@with_settings(*READER)
@with_new_operation("kind", "title", "owner", "tags", "metadata", "parent", condition="With --create")
def publish(
    *,
    settings: Settings,
    id: Id,
    source: Annotated[
        str | None,
        typer.Argument(metavar="[-]", help="`-` reads events from standard input, one JSON object per line."),
    ] = None,
    type: Annotated[str | None, typer.Option(help="The type of a single event, such as progress, log or end.")] = None,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="The data of the event.")] = None,
    create: Annotated[bool, typer.Option("--create", help="Create the operation first if it does not exist.")] = False,
    words: dict[str, Any],
    as_json: AsJson = False,
) -> None:
    """Publish one event of an operation, or a stream of events from standard input.

    For example `progress-broker publish import-42 --create --type progress --data '{"percent": 40}'`, or `my-work |
    progress-broker publish import-42 -` with lines such as `{"type": "log", "data": {"message": "hi"}}`.

    Lines may also be what `tail --json` prints: `progress-broker tail import-42 --from start --json >events`, then
    `progress-broker publish copy --create - <events`. With --create, a file is checked before anything is created.
    """
    _check_usage(source, type, data, create, words)
    new = _new(id, words) if create else None
    single = [("", [_event(type, data, settings)])] if type else []
    batches = read_batches(settings, check_file=create) if source else iter(single)
    answer = _publish(settings, id, new, batches)
    if as_json and answer is not None:
        typer.echo(answer.model_dump_json())
    elif answer is not None:
        cancel = "; a cancel was requested" if answer.cancel_requested else ""
        typer.echo(f"{id}: {counted(answer.events, 'event')}, last position {answer.position}{cancel}")


def _check_usage(source: str | None, type: str | None, data: str | None, create: bool, words: dict[str, Any]) -> None:
    if source not in (None, "-"):
        raise typer.BadParameter("use - to read events from standard input", param_hint="[-]")
    if source and (type or data):
        raise typer.BadParameter("use either --type and --data for one event, or - for standard input, not both")
    if data and not type:
        raise typer.BadParameter("--data needs --type, the type of the event")
    if not (source or type or create):
        raise typer.BadParameter("nothing to publish: use --type and --data for one event, or - for standard input")
    if words and not create:
        raise typer.BadParameter(f"--{next(iter(words)).removesuffix('s')} is for a new operation only: add --create")


def _new(id: str, words: dict[str, Any]) -> NewOperation:
    return validated(NewOperation, {"id": id, **words})


def _event(type: str, data: str | None, settings: Settings) -> NewEvent:
    value = None if data is None else read_json(data.encode("utf-8", "surrogateescape"))
    return read_publish_request({"type": type, "data": value}, settings)


def _publish(settings: Settings, id: str, new: NewOperation | None, batches: Batches) -> PublishResult | None:
    """Publish batch by batch. Reading may block forever, so it happens between runs of the event loop, not inside."""
    answer: PublishResult | None = None
    with asyncio.Runner() as runner:
        client = connect.client(settings)
        try:
            operations = runner.run(client.backend())
            batches = chain(list(islice(batches, 1)), batches)  # read before: bad input must not create an operation
            if new is not None:
                made = runner.run(operations.create(new))
                answer = PublishResult(
                    position=made.position, events=made.events, cancel_requested=made.cancel_requested
                )
            for place, entries in batches:
                try:
                    answer = runner.run(operations.publish(id, entries))
                except BrokerError as error:
                    raise at_line(place, error) from None
        finally:
            runner.run(client.close())
    return answer
