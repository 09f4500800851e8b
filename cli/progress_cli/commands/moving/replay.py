"""`replay`: show the events of operations again."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import Annotated, NamedTuple

import typer

from progress_broker.archiving.archive import ArchiveSource
from progress_broker.archiving.stores import open_store
from progress_broker.errors import InvalidInput, NotFound
from progress_broker.model.operation import is_id
from progress_broker.model.position import parse
from progress_broker.queries.fields import Pairs, read_filters
from progress_broker.replay.memory import MemoryStore
from progress_broker.replay.player import Player, Sink
from progress_broker.replay.recording import Choice, Recorded, Recording, any_operation, load
from progress_broker.replay.spool import Spool
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
from progress_cli.query_options import is_file, time_ms, with_filters

_OPERATION = "operation:"


class _Asked(NamedTuple):
    """What is to be replayed, and how."""

    words: list[str]
    query: Pairs
    archive: str | None
    choice: Choice
    speed: float
    idle_limit_s: float
    loop: bool
    step: bool


@with_settings(*READER)
@with_filters(without=("since", "until"))
def replay(
    settings: Settings,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|ID...]", help="The file of an export, or operations; or choose them by options."),
    ] = None,
    query: Pairs = (),
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
    serve: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", min=0, max=65_535, help="Serve the page and the API at this port, as they were then."
        ),
    ] = None,
) -> None:
    """Show the events of operations again, with the pauses that were between them, or faster.

    For example `progress-broker replay import-42 --speed 10`, or `progress-broker replay failed.ndjson --to
    operation:copy --target https://staging.example.org`. With `--serve 8080`, http://127.0.0.1:8080 is a server in
    memory, in which the operations go on as they did, under their ids. At the end, it says how late events were, and
    after a break where to go on.
    """
    words = what or []
    if not words and (not query or archive is not None):
        raise InvalidInput("choose what to replay: the file of an export, ids, or options such as `--status failed`")
    if step and PIPE in words:
        raise InvalidInput("--step reads standard input, so the export can't come from there")
    if after is not None:
        parse(after)
    only = frozenset(types.split(",")) if types else frozenset[str]()
    choice = Choice(time_ms(since), time_ms(until), after, only)
    idle_limit_s = inf if idle_limit is None else seconds(idle_limit)
    asked = _Asked(words, query, archive, choice, _speed(speed), idle_limit_s, loop, step)
    with Spool() as spool:
        if serve is None:
            asyncio.run(while_read(_replay(settings, asked, spool, to, target)))
        else:
            _serve(settings, asked, spool, serve, alone=to == PIPE and target is None)


def _speed(text: str) -> float:
    try:
        speed = inf if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise InvalidInput(f"--speed {text[:40]!r}: expected a number above 0, or max", field="speed")
    return speed


async def _replay(settings: Settings, asked: _Asked, spool: Spool, to: str, target: str | None) -> None:
    recording = await _load(settings, asked, asked.choice, spool)
    async with _sink(settings, recording, to, target) as sink:
        steps = Stepwise(sink) if asked.step else sink
        while True:
            await _play(asked, recording.events, steps)
            if not asked.loop:
                return


def _serve(settings: Settings, asked: _Asked, spool: Spool, port: int, *, alone: bool) -> None:
    if asked.loop or asked.choice.types or not alone:
        raise InvalidInput("--serve shows operations whole, once: leave out --loop, --types, --to and --target")
    from progress_cli.server.replay import serve_replay  # imports the web framework

    async def play(recording: Recording, store: MemoryStore) -> None:
        events = await store.begin(recording, asked.choice)
        await _play(asked, events, Stepwise(store) if asked.step else store)

    # What was before is needed, too: it makes the state that the server begins with.
    until = Choice(until_ms=asked.choice.until_ms)
    serve_replay(settings, port, lambda: _load(settings, asked, until, spool), play)


async def _load(settings: Settings, asked: _Asked, choice: Choice, spool: Spool) -> Recording:
    source: OperationSource | None = None
    if asked.archive is not None:
        source = ArchiveSource(open_store(asked.archive), asked.words)
    elif asked.words and is_file(asked.words[0]):
        if len(asked.words) > 1:
            raise InvalidInput("replay either one file, or operations by their ids")
        source = open_source(asked.words[0])
    if source is not None:
        filters = read_filters(asked.query, round(1000 * time.time()))
        return await load(source, choice, spool, filters.match if asked.query else any_operation)
    async with connect.operators(settings) as operators:
        now_ms = round(1000 * (await operators.now()).timestamp())
        filters = read_filters((*(("id", id) for id in asked.words), *asked.query), now_ms)
        recording = await load(operators.source(filters), choice, spool)
    missing = [id for id in asked.words if id not in recording.operations]
    if missing and not asked.query:
        raise NotFound(f"there is no operation {', '.join(missing)}")
    return recording


async def _play(asked: _Asked, events: Iterable[Recorded], sink: Sink) -> None:
    player = Player(sink, Timeline(inf if asked.step else asked.speed, asked.idle_limit_s))
    ended = False
    try:
        await player.play(events)
        ended = True
    finally:
        _report(player, ended=ended, timed=asked.speed != inf and not asked.step)


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


def _report(player: Player, *, ended: bool, timed: bool) -> None:
    """Tell how much was sent, how late, and where to go on."""
    said = f"{counted(player.sent, 'event')} replayed"
    late_ms = player.lateness.percentile_ms(99)
    if timed and late_ms is not None:
        said += f", 99 % of them within {late_ms} ms of their times"
    if not ended:
        said += f"; go on with --after {player.position.decode()}" if player.position else "; nothing was sent"
    print_info(said)
