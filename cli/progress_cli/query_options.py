"""Options that choose operations. They are made of the fields of a query, so that commands and calls take the same."""

import datetime as day
import inspect
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import wraps
from typing import Annotated, Any, Optional

import typer

from progress_broker.errors import InvalidInput
from progress_broker.queries.fields import FIELDS, QueryField, read_filters
from progress_broker.queries.fields import Pairs as Pairs
from progress_broker.queries.times import read_time
from progress_cli.options import complete_id, with_parameters

_BY_ARGUMENT = frozenset({"id"})
"""Fields that are a command's arguments."""
_METAVARS = {"q": "TEXT", "metadata": "KEY=VALUE", "idle": "DURATION"}


_FILES = (".ndjson", ".jsonl", ".gz", ".zst")
"""How the names of files end that may be the last of several arguments, which are ids."""


def with_filters(
    *, ids: bool = False, file: bool = False, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `query` by one option for each field of a query, and with `ids` by the ids as
    arguments, too.

    `query` is then the pairs that were given. What is wrong in them is told before the command begins. With `file`, the
    last argument may be the name of a file: the command's parameter `file`, or `-` without one. The fields in `without`
    get no option: the command has its own of that name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        left_out = {*_BY_ARGUMENT, *without}
        options = {field.name: _option(field) for field in FIELDS.values() if field.name not in left_out}
        if ids:
            options = {"id": _ids(file=file)} | options

        @wraps(command)
        def run(**given: Any) -> None:
            if file:
                given["id"], given["file"] = _split(given["id"] or ())
            pairs = tuple(pair for name in options for pair in _pairs(FIELDS[name], given.pop(name)))
            read_filters(pairs, round(1000 * time.time()))
            command(query=pairs, **given)

        return with_parameters(run, command, query=options.values(), **({"file": ()} if file else {}))

    return decorate


def _option(field: QueryField) -> inspect.Parameter:
    flag = f"--{field.name.replace('_', '-')}"
    if field.type is bool:
        return _parameter(field.name, bool, typer.Option(flag, help=f"{field.help}."), default=False)
    declared = typer.Option(flag, metavar=_metavar(field), help=f"{field.help}, such as `{field.example}`.")
    return _parameter(field.name, list[str] if field.repeatable else str, declared)


def _metavar(field: QueryField) -> str:
    if field.read is read_time:
        return "TIME"
    return _METAVARS.get(field.name) or field.name.rpartition("_")[2].upper()


def _ids(*, file: bool) -> inspect.Parameter:
    help = "Operations with these ids."
    if file:
        help += f" Then a file: `-`, or a name with a slash, or one that ends with {', '.join(_FILES)}."
    declared = typer.Argument(
        metavar="[ID]... [FILE]" if file else "ID", help=help, show_default=False, autocompletion=complete_id
    )
    return _parameter("id", list[str], declared)


def _split(words: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return the ids among arguments, and the name of the file after them."""
    return (words[:-1], words[-1]) if words and is_file(words[-1]) else (words, "-")


def is_file(word: str) -> bool:
    """Return whether an argument names a file, and not an operation."""
    return word == "-" or "/" in word or word.endswith(_FILES)


def _parameter(name: str, kind: Any, declared: Any, default: Any = None) -> inspect.Parameter:
    annotation: Any = Annotated[Optional[kind], declared]  # noqa: UP045 - built at run time
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _pairs(field: QueryField, given: Any) -> Iterator[tuple[str, str]]:
    if field.type is bool:
        yield from [(field.name, "true")] if given else []
        return
    for text in given or () if field.repeatable else (given,):
        if text is not None:
            yield field.name, _today(text) if field.read is read_time else text


def time_ms(text: str | None) -> int | None:
    """Return the time of an option that is not one of a query, in milliseconds; raise `InvalidInput`."""
    if text is None:
        return None
    try:
        return read_time(_today(text), round(1000 * time.time()))
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _today(text: str) -> str:
    """Return a local time of today, such as `14:05`, with its date and zone; other texts as they are."""
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text) is None:
        return text
    try:
        clock = day.time.fromisoformat(text.zfill(8 if text.count(":") > 1 else 5))
    except ValueError:
        raise InvalidInput(f"{text!r} is no time of a day: use 14:05 or 14:05:30") from None
    today = day.datetime.now().astimezone().date()
    return day.datetime.combine(today, clock).astimezone().isoformat()
