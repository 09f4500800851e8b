"""`run`: a command as an operation, for work that knows nothing of progress."""

import logging
from typing import Annotated, Any, Literal

import typer

from progress_broker.errors import Invalid
from progress_broker.settings import Settings
from progress_cli.operation_options import with_new_operation
from progress_cli.options import CLIENT, with_settings
from progress_cli.process.job import SIGNALLED, Job, report, start
from progress_cli.process.relay import Interrupted, Relay
from progress_workers.null import NOTHING
from progress_workers.processes.running import GRACE_S


@with_settings(*CLIENT)
@with_new_operation(
    "id",
    "kind",
    "title",
    "owner",
    "tags",
    "parent",
    "lease_s",
    id="the operation's id, good for one run; made up by default",
    kind="category of the work; by default the command's name",
    lease_s="seconds of silence, as after a crash, until it counts as stalled",
)
def run(
    *,
    settings: Settings,
    command: Annotated[
        list[str],
        typer.Argument(metavar="[--] COMMAND [ARG]…", help="What to run; not through a shell.", show_default=False),
    ],
    words: dict[str, Any],
    pattern: Annotated[
        str,
        typer.Option(
            help="Where progress is read from: `bars` (3/10 or 30% in lines that are rewritten), `auto` (in any line),"
            " `off`, or a regular expression with groups named current, total, percent, message or unit."
        ),
    ] = "bars",
    ansi: Annotated[
        Literal["strip", "keep"], typer.Option(help="What the log does with colours and the like.")
    ] = "strip",
    grace_s: Annotated[
        float, typer.Option(min=0, help="Seconds between SIGTERM and SIGKILL when it is cancelled.")
    ] = GRACE_S,
    require: Annotated[
        bool, typer.Option("--require", help="Don't run the command if the operation can't be started.")
    ] = False,
) -> None:
    """Run a command as an operation: its output is the log, its progress bar moves the operation's.

    For example `progress-broker run --id nightly-0514 -- rsync -a --info=progress2 /data /backup`.

    Output is passed through as it is; where both outputs are one file or pipe, in its order, and all of it is logged
    as info. If it can't be written, as to a full disk, the operation fails.

    The exit code is the command's: 0 succeeds; 128+n if signal n killed it, 127 if there is no such command, 126 if
    it can't be run, 1 if it ended with 0 but its output can't be written.

    A cancel from elsewhere sends SIGTERM to the command and all it started, SIGKILL after --grace-s, and exits
    with 3. Ctrl-C, SIGTERM, SIGHUP and SIGQUIT are handed on to it and end the operation as cancelled; how soon to
    end is then up to the command. If we are killed by SIGKILL, on Linux the command itself gets SIGTERM.

    Where Redis can't be reached or refuses the operation, a note on standard error says so, and the command is run
    all the same; with --require it is not.
    """
    job = Job(command, pattern, ansi, grace_s)
    job.outputs(NOTHING)  # a wrong pattern shows before anything is begun
    if "" in words.get("tags", ()):
        raise Invalid("--tag: a tag has at least one character", field="tags")
    kind = words.pop("kind", None) or job.name
    logging.basicConfig(format="progress-broker: %(message)s", level=logging.WARNING)
    try:
        with Relay.open() as relay:
            operation = start(kind, words | {"settings": settings}, require)
            code = report(job, operation, relay)
    except Interrupted as interrupted:
        code = -interrupted.number
    raise typer.Exit(code if code >= 0 else SIGNALLED - code)
