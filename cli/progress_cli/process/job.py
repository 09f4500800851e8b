"""Runs a command as an operation: what to run, how to report it, and the exit code."""

import os
import signal
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import redis.exceptions

from progress_broker.embedded.server_process import ending_with_us
from progress_broker.errors import BrokerError, Fenced, InvalidInput, OperationEnded, OperationExists
from progress_broker.model.operation import MAX_LABEL_CHARS
from progress_cli.exit_codes import CANCELLED, FAILED, print_error, print_info
from progress_cli.process.relay import Interrupted, Relay
from progress_cli.process.terminal import Terminal
from progress_workers import Cancelled, Operation
from progress_workers.base import BaseOperation
from progress_workers.null import NULL_OPERATION, NullOperation
from progress_workers.processes.child import SpawnOptions
from progress_workers.processes.errors import failure
from progress_workers.processes.output import Output
from progress_workers.processes.run import descriptor_of, make_outputs
from progress_workers.processes.running import Running

NOT_RUNNABLE = 126
NOT_FOUND = 127
SIGNALLED = 128
_STOPPING = (Cancelled, Fenced)
_CTRL_C = (-signal.SIGINT, SIGNALLED + signal.SIGINT)
_UNREAD = (0, -signal.SIGPIPE, SIGNALLED + signal.SIGPIPE)
"""Exit codes of a command, or its shell, after its output was closed: we caused this end, not the command."""


class Job(NamedTuple):
    """What to run, and how."""

    command: list[str]
    pattern: str
    ansi: Literal["strip", "keep"]
    grace_s: float

    @property
    def name(self) -> str:
        """The command's name, as the kind of work."""
        name = "".join(char for char in Path(self.command[0]).name if char.isprintable())
        return name[:MAX_LABEL_CHARS] or "command"

    def outputs(self, operation: BaseOperation) -> tuple[Output, Output]:
        """Return the objects that report the command's output to an operation."""
        return make_outputs(operation, pattern=self.pattern, ansi=self.ansi)

    def start(self, outputs: tuple[Output, Output]) -> Running:
        """Start the command. Its output is also copied to ours."""
        copies = [descriptor_of(sys.stdout), descriptor_of(sys.stderr)]
        in_one = _same_file(*copies)
        place = SpawnOptions(stdin=None, with_terminal=True, in_one=in_one, prepare=ending_with_us())
        pipes = slice(1 if in_one else 2)
        return Running(self.command, list(outputs)[pipes], place=place, grace_s=self.grace_s, copy_to=copies[pipes])


def start(kind: str, options: dict[str, Any], require: bool) -> Operation | NullOperation:
    """Return the operation, or the null operation if it can't be created: the work matters more than its report."""
    try:
        operation = Operation.start(kind, **options, required=require)
    except InvalidInput:
        raise
    except (BrokerError, redis.exceptions.RedisError) as error:
        if require:
            raise
        used = isinstance(error, OperationExists | OperationEnded)
        why = f"the id {options.get('id')} was already used; an id is valid for one run only" if used else error
        print_error(f"the command runs without being reported: {why}")
        return NULL_OPERATION
    if "id" not in options:
        with suppress(OSError):  # standard error may not be writable
            print_info(f"reporting as operation {operation.id}; to follow it: progress-broker tail {operation.id}")
    return operation


def report(job: Job, operation: Operation | NullOperation, relay: Relay) -> int:
    """Run the job, report it, and return the exit code; a negative number is a signal."""
    code: int | None = None
    try:
        with operation:
            _look(operation)
            code = _do(job, operation, relay)
    except (Cancelled, BrokerError) as error:
        if code is None and not isinstance(error, _STOPPING):
            raise
        print_error(str(error) if code is None else f"the end of the command could not be reported: {error}")
    return CANCELLED if code is None else code


def _look(operation: BaseOperation) -> None:
    """Raise if the work is cancelled or fenced. Other errors, such as a loss in Redis, do not stop the work."""
    try:
        operation.raise_if_cancelled()
    except _STOPPING:
        raise
    except BrokerError:
        pass


def _do(job: Job, operation: BaseOperation, relay: Relay) -> int:
    outputs = job.outputs(operation)
    relay.keep_signals()
    try:
        running = job.start(outputs)
    except OSError as error:
        operation.fail(error)
        print_error(f"cannot start {job.command[0]}: {error.strerror}")
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
        relay.interrupted = relay.interrupted or Interrupted(signal.SIGINT)  # only the command received it
    stopped = running.stopped_for or relay.interrupted
    if stopped is None and (lost := _lost(running.copy_errors)) is not None:
        operation.fail(lost)
        with suppress(OSError):  # standard error may not be writable either
            print_error(str(lost))
        return FAILED if code in _UNREAD else code
    return _end(operation, stopped, code, job.command, outputs[len(running.copy_errors) - 1].last)


def _lost(errors: Sequence[OSError | None]) -> OSError | None:
    """Return an error if output was lost, otherwise None."""
    for name, error in zip(("output", "error"), errors, strict=False):
        if error is not None:
            return OSError(f"standard {name} can't be written: {error.strerror}")
    return None


def _stop(running: Running, error: Exception) -> None:
    """Stop the command if the work is cancelled or fenced."""
    if isinstance(error, _STOPPING):
        print_error(str(error))
        running.stop(error)


def _end(
    operation: BaseOperation, stopped: BaseException | None, code: int, command: list[str], last: Iterable[str]
) -> int:
    """Report how the command ended, and return the exit code."""
    if stopped is not None:
        operation.fail(stopped)
        return code if isinstance(stopped, Interrupted) else CANCELLED
    if code:
        operation.fail(failure(code, command, last))
    else:
        operation.succeed({"exit_code": code})
    return code


def _same_file(first: int | None, second: int | None) -> bool:
    """Return whether two descriptors belong to the same file or pipe, so that the order of writes is visible.

    Terminals and other character devices return False: there it matters more which lines are warnings.
    """
    if first is None or second is None:
        return False
    one, other = os.fstat(first), os.fstat(second)
    return os.path.samestat(one, other) and not stat.S_ISCHR(one.st_mode)
