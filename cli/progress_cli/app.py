"""The app: what `progress-broker` can do."""

import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from progress_cli.commands import credentials, revocations
from progress_cli.commands.cancel import cancel
from progress_cli.commands.demo import demo
from progress_cli.commands.ls import ls
from progress_cli.commands.publish import publish
from progress_cli.commands.retention import retention
from progress_cli.commands.run import run as run_command
from progress_cli.commands.script import script
from progress_cli.commands.serve import serve
from progress_cli.commands.show import show
from progress_cli.commands.signal import signal
from progress_cli.commands.tail import tail
from progress_cli.exit_codes import EXIT_CODES, Boundary

app = typer.Typer(
    name="progress-broker",
    cls=Boundary,
    help="Tells people how their long work is going.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, demo, ls, show, tail, cancel, signal, publish, retention, script):
    app.command()(command)
auth = typer.Typer(help="Make tokens and API keys; revoke and restore them.", no_args_is_help=True)
for command in (credentials.token, credentials.key, revocations.revoke, revocations.restore):
    auth.command()(command)
auth.command("list")(revocations.show_revoked)
app.add_typer(auth, name="auth")
app.command("run", context_settings={"allow_interspersed_args": False})(run_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("progress-broker"))
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tells people how their long work is going."""


def run() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no reason to fail
    app()
