"""What commands on many operations have in common: which ones, a look at them, the question, and what came of it."""

import asyncio
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import wraps
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from progress_broker.bulk.carrying import AT_ONCE, Report, carry_out, in_lines
from progress_broker.bulk.selection import SAMPLES, Selection
from progress_broker.bulk.verbs import Verb
from progress_broker.errors import InvalidInput, NotFound
from progress_broker.model.operation import is_id
from progress_broker.queries.fields import Pairs
from progress_broker.settings import Settings
from progress_broker.storage.lanes import shown
from progress_cli import connect
from progress_cli.exit_codes import REJECTED, STORAGE, exit_code, print_error, print_info
from progress_cli.options import READER, complete_id, with_parameters, with_settings
from progress_cli.output import format
from progress_cli.query_options import with_filters
from progress_client.operators.many import Many

PIPE = "-"
RPS = 200.0
"""Operations a second, unless said."""
MOST = 100_000
"""How many operations one command acts on, unless said."""

Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID...|-]", help="Operations; `-` reads ids from standard input.", autocompletion=complete_id
    ),
]


class Options(NamedTuple):
    """How to act on many operations."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
    rps: Annotated[float, typer.Option("--rps", min=0.1, help="How many operations a second, at most.")] = RPS
    most: Annotated[int, typer.Option("--max", min=1, help="Refuse to act on more operations than this.")] = MOST


def with_many(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command on many operations its `settings`, its `query` and its `options`, each as options of its own."""
    many = inspect.signature(Options, eval_str=True).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        command(options=Options(**{name: given.pop(name) for name in many}), **given)

    return with_settings(*READER)(with_filters()(with_parameters(run, command, options=many.values())))


def is_one(ids: Sequence[str] | None, query: Pairs) -> bool:
    """Return whether a command was given the id of one operation, and nothing else."""
    return len(ids or ()) == 1 and ids != [PIPE] and not query


async def act_on_one(many: Many, verb: Verb, id: str, detail: str) -> None:
    """Do it to one operation, and record in the audit if that changed it."""
    _check_id(id)
    if await verb.act(id):
        await many.record(verb, id, detail)


def act_on_many(
    settings: Settings,
    ids: Sequence[str],
    query: Pairs,
    options: Options,
    verb_of: Callable[[Many], Verb],
    done: str,
) -> NoReturn:
    """Do it to the operations that were named or chosen, after a question; `done` is such as `cancelled`.

    Ends the command with a code unless all was done.
    """
    named = _read_ids(ids)
    if named and query:
        raise InvalidInput("name operations, or choose them by options, and not both")
    if not named and not query and PIPE in ids:  # a list that is empty
        typer.echo(f"0 {done}")
        raise typer.Exit
    if not named and not query:
        raise InvalidInput("name operations, or choose them by options: see `progress-broker ls --help`")
    if not (options.yes or options.dry_run or (sys.stdin.isatty() and sys.stderr.isatty())):
        raise InvalidInput(
            "nothing was done, as there is no terminal to ask: confirm with --yes, or look with --dry-run"
        )
    raise typer.Exit(asyncio.run(_run(settings, named, query, options, verb_of, done)))


async def _run(
    settings: Settings,
    ids: Sequence[str],
    query: Pairs,
    options: Options,
    verb_of: Callable[[Many], Verb],
    done: str,
) -> int:
    async with connect.operators(settings) as operators:
        many = operators.many
        verb = verb_of(many)
        selection = Selection(len(ids), ids[:SAMPLES], ()) if ids else await many.select(verb, query, options.most)
        _look(selection, options, done)
        if options.dry_run or not (options.yes or (selection.number and typer.confirm("Go on?", err=True))):
            return _partly(selection.lanes_away)
        away: set[int] = set()
        groups = _groups(ids) if ids else many.found(verb, query, away)
        async with aclosing(groups):
            report = await _carry_out(many, verb, groups, query, options)
    _tell(report, done)
    if report.failed:
        codes = {exit_code(failure.error) for failure in report.failures}
        return STORAGE if codes == {STORAGE} else REJECTED
    return _partly(sorted(away))


async def _carry_out(
    many: Many, verb: Verb, groups: AsyncGenerator[Sequence[str]], query: Pairs, options: Options
) -> Report:
    """Do it, and record in the audit what was asked for and which operations that changed."""
    live = sys.stderr.isatty()

    async def told(report: Report) -> None:
        if live:
            typer.echo(f"\r{format.number(report.done)} operations", nl=False, err=True)
        if len(report.ids) >= AT_ONCE:
            await record(report)

    async def record(report: Report) -> None:
        changed, report.ids = report.ids, []
        for names in in_lines(changed):
            await many.record(verb, names, "")

    report = Report()
    try:
        return await carry_out(verb.act, groups, rps=options.rps, most=options.most, told=told, report=report)
    finally:
        if live and report.done:
            typer.echo(err=True)
        await record(report)
        chosen = "&".join(f"{name}={text}" for name, text in query) or "by id"
        counts = f"{report.changed} changed, {report.skipped} skipped, {report.failed} failed"
        await many.record(verb, chosen, counts)


def _look(selection: Selection, options: Options, done: str) -> None:
    """Print how many operations there are, and some of them; refuse if they are too many."""
    if selection.number > options.most:
        raise InvalidInput(
            f"more than {format.number(options.most)} operations match: choose fewer, or allow more with --max"
        )
    if options.yes and not options.dry_run:
        return
    would = "would be" if options.dry_run else "to be"
    print_info(f"{format.counted(selection.number, 'operation')} {would} {done}")
    for id in selection.samples:
        print_info(f"  {format.plain(id)}")
    if selection.number > len(selection.samples):
        print_info(f"  and {format.number(selection.number - len(selection.samples))} more")


def _tell(report: Report, done: str) -> None:
    parts = [f"{format.number(report.changed)} {done}"]
    if report.skipped:
        parts.append(f"{format.number(report.skipped)} skipped, as there was nothing to do")
    if report.failed:
        parts.append(f"{format.number(report.failed)} failed")
    typer.echo(", ".join(parts))
    for failure in report.failures:
        print_error(f"{failure.operation}: {failure.error.detail}")


def _partly(lanes_away: Sequence[int]) -> int:
    """Return the exit code where all was done that could be reached."""
    if not lanes_away:
        return 0
    print_error(f"operations were left out: {shown(lanes_away)} can't be reached now; repeat the command later")
    return STORAGE


async def _groups(ids: Sequence[str]) -> AsyncGenerator[Sequence[str]]:
    for at in range(0, len(ids), AT_ONCE):
        yield ids[at : at + AT_ONCE]


def _read_ids(given: Iterable[str]) -> list[str]:
    """Return the ids, each once; those of standard input instead of `-`."""
    words: list[str] = []
    for word in given:
        words += [line.strip() for line in sys.stdin if line.strip()] if word == PIPE else [word]
    for word in words:
        _check_id(word)
    return list(dict.fromkeys(words))


def _check_id(word: str) -> None:
    if not is_id(word):
        said = f"there is no operation {format.plain(word[:128])!r}: that is not a valid id"
        raise NotFound(f"{said}, which has up to 128 of A-Z, a-z, 0-9, . _ ~ -")
