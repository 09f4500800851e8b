"""`replay`: show the events of operations again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import Annotated

import typer

from progress_broker.archiving.archive import ArchiveSource
from progress_broker.archiving.stores import open_store
from progress_broker.errors import InvalidInput, NotFound
from progress_broker.model.operation import is_id
from progress_broker.model.position import parse
from progress_broker.queries.filters import Filters
from progress_broker.replay.player import Player, Sink
from progress_broker.replay.recording import Choice, Recording, load
from progress_broker.replay.timeline import Timeline
from progress_broker.runtime.durations import seconds
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import OperationSource
from progress_broker.transfer.files.local import PIPE, open_source
from progress_cli import connect
from progress_cli.commands.tail import while_read
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_cli.output.format import counted
from progress_cli.output.replay import Envelopes, Stepwise, ToOperation
from progress_cli.query_options import is_file, time_ms

_OPERATION = "operation:"


@with_settings(*READER)
def replay(
    settings: Settings,
    what: Annotated[list[str], typer.Argument(metavar="FILE|ID...", help="The file of an export, or operations.")],
    speed: Annotated[str, typer.Option(metavar="NUMBER|max", help="How many times faster; max: without pauses.")] = "1",
    idle_limit: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Cut longer pauses to this, such as `2s`.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only events since then, such as `14:05`.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only events before then.")] = None,
    after: Annotated[str | None, typer.Option(metavar="POSITION", help="Only events after this position.")] = None,
    types: Annotated[str | None, typer.Option(metavar="TYPE,...", help="Only these types, and ends.")] = None,
    archive: Annotated[
        str | None, typer.Option("--from", metavar="FOLDER|URL", help="Read the operations from this archive.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    step: Annotated[bool, typer.Option("--step", help="Wait for Enter before each event.")] = False,
    to: Annotated[
        str, typer.Option(metavar="-|operation:ID", help="Print the events, or publish them to a new operation.")
    ] = PIPE,
    target: Annotated[
        str | None, typer.Option(metavar="URL", help="The server with the new operation, if it is another one.")
    ] = None,
) -> None:
    """Show the events of operations again, with the pauses that were between them, or faster.

    For example `progress-broker replay import-42 --speed 10`, or `progress-broker replay failed.ndjson --to
    operation:copy --target https://staging.example.org`. At the end, it says how late events were, and after a break
    where to go on.
    """
    pace = (_speed(speed), inf if idle_limit is None else seconds(idle_limit))
    if after is not None:
        parse(after)
    now_types = frozenset(types.split(",")) if types else frozenset[str]()
    choice = Choice(time_ms(since), time_ms(until), after, now_types)
    if step and PIPE in what:
        raise InvalidInput("--step reads standard input, so the export can't come from there")
    source = ArchiveSource(open_store(archive), what) if archive is not None else None
    asyncio.run(while_read(_replay(settings, what, source, choice, pace, loop, step, to, target)))


def _speed(text: str) -> float:
    try:
        speed = inf if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise InvalidInput(f"--speed {text[:40]!r}: expected a number above 0, or max", field="speed")
    return speed


async def _replay(
    settings: Settings,
    what: list[str],
    source: OperationSource | None,
    choice: Choice,
    pace: tuple[float, float],
    loop: bool,
    step: bool,
    to: str,
    target: str | None,
) -> None:
    recording = await (_load(settings, what, choice) if source is None else load(source, choice))
    async with _sink(settings, recording, to, target) as sink:
        steps = Stepwise(sink) if step else sink
        while True:
            player = Player(steps, Timeline(inf if step else pace[0], pace[1]))
            try:
                await player.play(recording.events)
            finally:
                _report(player, recording, timed=pace[0] != inf and not step)
            if not loop:
                return


async def _load(settings: Settings, what: list[str], choice: Choice) -> Recording:
    if is_file(what[0]):
        if len(what) > 1:
            raise InvalidInput("replay either one file, or operations by their ids")
        return await load(open_source(what[0]), choice)
    async with connect.operators(settings) as operators:
        recording = await load(operators.source(Filters(ids=tuple(what))), choice)
    if missing := [id for id in what if id not in recording.operations]:
        raise NotFound(f"there is no operation {', '.join(missing)}")
    return recording


@asynccontextmanager
async def _sink(settings: Settings, recording: Recording, to: str, target: str | None) -> AsyncIterator[Sink]:
    async with AsyncExitStack() as resources:
        if to == PIPE:
            yield Envelopes()
            return
        id = to.removeprefix(_OPERATION)
        if not to.startswith(_OPERATION) or not is_id(id):
            raise InvalidInput(
                f"--to {to[:60]!r}: expected - or operation:ID, with the id of a new operation", field="to"
            )
        if len(recording.operations) > 1:
            raise InvalidInput("--to operation:ID takes the events of one operation; choose one of them by its id")
        if target is not None:
            settings = settings.model_copy(update={"url": target, "redis_url": None})
        client = await resources.enter_async_context(connect.client(settings))
        [first] = recording.operations.values()
        yield ToOperation(await client.backend(), id, first)


def _report(player: Player, recording: Recording, *, timed: bool) -> None:
    """Tell how much was sent, how late, and where to go on."""
    said = f"{counted(player.sent, 'event')} replayed"
    late_ms = player.lateness.percentile_ms(99)
    if timed and late_ms is not None:
        said += f", 99 % of them within {late_ms} ms of their times"
    if player.sent < len(recording.events):
        said += f"; go on with --after {player.position.decode()}" if player.position else "; nothing was sent"
    print_info(said)
