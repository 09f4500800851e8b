"""`run`: a command as an operation, for work that knows nothing of progress."""

import logging
import os
import signal
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TextIO

import redis.exceptions
import typer

from progress_broker.embedded.server_process import ending_with_us
from progress_broker.errors import BrokerError, Fenced, Invalid, OperationEnded, OperationExists
from progress_broker.settings import Settings
from progress_cli.exit_codes import CANCELLED, FAILED, complain
from progress_cli.options import CLIENT, with_settings
from progress_workers import Cancelled, Operation
from progress_workers.base import Reporting
from progress_workers.null import NOTHING, NoOperation
from progress_workers.processes import (
    GRACE_S,
    Interrupted,
    Output,
    Place,
    Relay,
    Running,
    Terminal,
    failure,
    make_outputs,
)

NOT_RUNNABLE = 126
NOT_FOUND = 127
SIGNALLED = 128
_STOPPING = (Cancelled, Fenced)
_CTRL_C = (-signal.SIGINT, SIGNALLED + signal.SIGINT)


@with_settings(*CLIENT)
def run(
    settings: Settings,
    command: Annotated[
        list[str],
        typer.Argument(metavar="[--] COMMAND [ARG]…", help="What to run; not through a shell.", show_default=False),
    ],
    id: Annotated[str | None, typer.Option(help="The operation's id, good for one run; made up by default.")] = None,
    kind: Annotated[str | None, typer.Option(help="What sort of work it is; by default the command's name.")] = None,
    title: Annotated[str | None, typer.Option(help="What people are shown.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whose it is.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
    parent: Annotated[str | None, typer.Option(help="The operation it belongs to.")] = None,
    lease_s: Annotated[
        float | None, typer.Option(min=0, help="Seconds of silence, as after a crash, until it counts as stalled.")
    ] = None,
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
    if "" in (tag or ()):
        raise Invalid("--tag: a tag has at least one character", field="tags")
    told = {"id": id, "title": title, "owner": owner, "tags": tag, "parent": parent, "lease_s": lease_s}
    options = {name: value for name, value in told.items() if value is not None}
    logging.basicConfig(format="progress-broker: %(message)s", level=logging.WARNING)
    try:
        with Relay.open() as relay:
            operation = _start(kind or job.name, options | {"settings": settings}, require)
            code = _report(job, operation, relay)
    except Interrupted as interrupted:
        code = -interrupted.number
    raise typer.Exit(code if code >= 0 else SIGNALLED - code)


_UNREAD = (0, -signal.SIGPIPE, SIGNALLED + signal.SIGPIPE)
"""What a command, or the shell around it, ends with that was let write no more: that was our doing, not its own."""


class Job(NamedTuple):
    """What is to be run, and how."""

    command: list[str]
    pattern: str
    ansi: Literal["strip", "keep"]
    grace_s: float

    @property
    def name(self) -> str:
        """The command's name, as a kind of work."""
        name = "".join(char for char in Path(self.command[0]).name if char.isprintable())
        return name[:128] or "command"

    def outputs(self, operation: Reporting) -> tuple[Output, Output]:
        """Return what tells an operation what the command prints."""
        return make_outputs(operation, pattern=self.pattern, ansi=self.ansi)

    def start(self, outputs: tuple[Output, Output]) -> Running:
        """Start the command, so that its output reaches ours as well."""
        copies = [_descriptor(sys.stdout), _descriptor(sys.stderr)]
        in_one = _same_file(*copies)
        place = Place(stdin=None, with_terminal=True, in_one=in_one, prepare=ending_with_us())
        pipes = slice(1 if in_one else 2)
        return Running(self.command, list(outputs)[pipes], place=place, grace_s=self.grace_s, copy_to=copies[pipes])


def _start(kind: str, options: dict[str, Any], require: bool) -> Operation | NoOperation:
    """Return the operation, or none if it is not to be had: the work is more than the report of it."""
    try:
        return Operation.start(kind, **options)
    except Invalid:
        raise
    except (BrokerError, redis.exceptions.RedisError) as error:
        if require:
            raise
        used = isinstance(error, OperationExists | OperationEnded)
        why = f"the id {options.get('id')} was used before, and is good for one run" if used else error
        complain(f"the command runs unreported: {why}")
        return NOTHING


def _report(job: Job, operation: Operation | NoOperation, relay: Relay) -> int:
    """Do the job, tell the operation, and return what to exit with; below zero it is a signal's number."""
    code: int | None = None
    try:
        with operation:
            _look(operation)
            code = _do(job, operation, relay)
    except (Cancelled, BrokerError) as error:
        if code is None and not isinstance(error, _STOPPING):
            raise
        complain(str(error) if code is None else f"the operation does not tell how the command ended: {error}")
    return CANCELLED if code is None else code


def _look(operation: Reporting) -> None:
    """Raise if somebody does not want the work begun. That Redis has lost the operation, say, is not that."""
    try:
        operation.raise_if_cancelled()
    except _STOPPING:
        raise
    except BrokerError:
        pass


def _do(job: Job, operation: Reporting, relay: Relay) -> int:
    outputs = job.outputs(operation)
    relay.hold()
    try:
        running = job.start(outputs)
    except OSError as error:
        operation.fail(error)
        complain(f"{job.command[0]}: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE
    with running, Terminal.open() as terminal:
        running.terminal = terminal
        relay.pass_to(running.child)
        forget = operation.on_cancel(partial(_stop, running))
        try:
            code = running.finish()
        finally:
            forget()
    if terminal is not None and terminal.lent_to is not None and code in _CTRL_C:
        relay.interrupted = relay.interrupted or Interrupted(signal.SIGINT)  # which it alone has heard
    stopped = running.stopped_for or relay.interrupted
    if stopped is None and (lost := _lost(running.copy_errors)) is not None:
        operation.fail(lost)
        with suppress(OSError):  # nor may standard error be writable
            complain(str(lost))
        return FAILED if code in _UNREAD else code
    return _end(operation, stopped, code, job.command, outputs[len(running.copy_errors) - 1].last)


def _lost(errors: Sequence[OSError | None]) -> OSError | None:
    """Return what tells that output was lost, if it was."""
    for name, error in zip(("output", "error"), errors, strict=False):
        if error is not None:
            return OSError(f"standard {name} can't be written: {error.strerror}")
    return None


def _stop(running: Running, error: Exception) -> None:
    """Stop the command if somebody wants that."""
    if isinstance(error, _STOPPING):
        complain(str(error))
        running.stop(error)


def _end(
    operation: Reporting, stopped: BaseException | None, code: int, command: list[str], last: Iterable[str]
) -> int:
    """Tell how it ended, and return what to exit with."""
    if stopped is not None:
        operation.fail(stopped)
        return code if isinstance(stopped, Interrupted) else CANCELLED
    if code:
        operation.fail(failure(code, command, last))
    else:
        operation.succeed({"exit_code": code})
    return code


def _descriptor(stream: TextIO | None) -> int | None:
    """Return a standard stream's descriptor, or None if it was closed before we came."""
    if stream is None:
        return None
    stream.flush()
    return stream.fileno()


def _same_file(first: int | None, second: int | None) -> bool:
    """Return whether two descriptors are of one file or pipe, in which the order of what is written shows.

    On a terminal and the like they are kept apart: there it matters more which lines are warnings.
    """
    if first is None or second is None:
        return False
    one, other = os.fstat(first), os.fstat(second)
    return os.path.samestat(one, other) and not stat.S_ISCHR(one.st_mode)
