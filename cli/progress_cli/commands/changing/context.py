"""`context add`, `context use`, `context ls` and `context rm`: names of servers."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from progress_broker.errors import InvalidInput, SetupError
from progress_broker.settings import load_settings
from progress_cli.exit_codes import print_info
from progress_cli.output.formats import Column, Format, Output, Printer, Shape
from progress_cli.user import contexts
from progress_cli.user.contexts import NAME, Context, complete_context

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the context.", autocompletion=complete_context)]


class _Row(NamedTuple):
    name: str
    context: Context
    in_use: bool


SHAPE = Shape[_Row](
    columns=(
        Column("IN USE", lambda it: "*" if it.in_use else ""),
        Column("NAME", lambda it: it.name),
        Column("URL", lambda it: it.context.url),
        Column("TOKEN FILE", lambda it: it.context.token_file or ""),
    ),
    name=lambda it: it.name,
    to_json=lambda it: {
        "name": it.name,
        "url": it.context.url,
        "token_file": it.context.token_file,
        "in_use": it.in_use,
    },
)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, `-` and `_`.")],
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The URL of the server.")],
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="The file with the key or token for it.")
    ] = None,
) -> None:
    """Add a context, or replace the one of that name. It names a server; the token stays in its file.

    For example `progress-broker context add production --url https://progress.example.com --token-file ~/.token`.
    """
    if NAME.fullmatch(name) is None:
        raise InvalidInput(f"{name[:64]!r} is not a valid name: use letters, digits, - and _, 64 at most")
    checked = load_settings(url=url).url or url
    if token_file is not None and not token_file.is_file():
        raise SetupError(f"there is no file {token_file}: write the token into it first")
    found = contexts.load()
    found.by_name[name] = Context(checked, None if token_file is None else str(token_file.absolute()))
    contexts.save(found)
    typer.echo(f"context {name} is {checked}: use it with --context {name}, or `progress-broker context use {name}`")


def use(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="The name of the context; none: use none.", autocompletion=complete_context
        ),
    ] = None,
) -> None:
    """Use a context in commands that are told neither by options nor by the environment where the operations are."""
    found = contexts.load()
    context = None if name is None else found.get(name)
    found.in_use = name
    contexts.save(found)
    typer.echo("no context is in use" if context is None else f"context {name} is in use: {context.url}")


def list_contexts(output: Output = Format.TABLE) -> None:
    """List the contexts, and which one is in use."""
    found = contexts.load()
    with Printer(SHAPE, output) as printer:
        for name, context in sorted(found.by_name.items()):
            printer.add(_Row(name, context, name == found.in_use))


def remove(name: Name) -> None:
    """Remove a context. The file of its token stays."""
    found = contexts.load()
    found.get(name)
    del found.by_name[name]
    if found.in_use == name:
        found.in_use = None
        print_info("no context is in use any more")
    contexts.save(found)
    typer.echo(f"context {name} is removed")
