"""How commands end: the exit codes, and the one boundary where an error becomes a line on standard error."""

import logging
import os
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import redis.exceptions
import typer
from typer.core import TyperGroup

from progress_broker.errors import BrokerError, Gone, NotFound, SetupError, StorageFull, StorageUnavailable
from progress_broker.extras import MissingExtra
from progress_broker.model.operation import Status

OK = 0
FAILED = 1
REFUSED = 2
CANCELLED = 3
MISSING = 4
STORAGE = 5
PIPE_CLOSED = 141

OUTCOMES = {Status.SUCCEEDED: OK, Status.FAILED: FAILED, Status.CANCELLED: CANCELLED}
"""What `tail` ends with."""

EXIT_CODES = (
    "Exit codes: 0 success; 1 the tailed operation failed; 2 wrong usage, or input that was refused;"
    " 3 the tailed operation was cancelled; 4 there is no such operation; 5 Redis can't be reached, is full or does"
    " not suit, or the setup is wrong; 130 interrupted by Ctrl-C; 141 the reader of the output went away."
    " `run` ends as its command does, and with 3 when it was cancelled from elsewhere."
    " `serve` waits for a Redis that is away, and ends with 5 only for what is wrong for good."
    " `serve` and `demo` end with 0 when they are told to stop, by Ctrl-C or SIGTERM."
)

_CODES: dict[type[BrokerError], int] = {
    NotFound: MISSING,
    Gone: MISSING,
    StorageUnavailable: STORAGE,
    StorageFull: STORAGE,
    SetupError: STORAGE,
    MissingExtra: STORAGE,
}


def exit_code(error: BrokerError) -> int:
    """Return what a command ends with that met this error; what is not listed refused its input."""
    return _CODES.get(type(error), REFUSED)


def complain(text: str) -> None:
    """Say what went wrong: one line, without what could be a password in an address."""
    line = re.sub(r"://[^@/\s]*@", "://***@", " ".join(text.split()))
    VOICE.get()(logging.ERROR, line)


def note(text: str) -> None:
    """Say what goes on, on standard error: standard output is for results."""
    VOICE.get()(logging.INFO, text)


def _plainly(_: int, text: str) -> None:
    typer.echo(f"progress-broker: {text}", err=True)


VOICE: ContextVar[Callable[[int, str], None]] = ContextVar("voice", default=_plainly)
"""How that is said: in plain lines, but by a server that logs for machines in lines of its log."""


class Boundary(TyperGroup):
    """The commands, none of which ends in a traceback for what can be expected to happen."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn its error into a line and an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone shows here, and not as noise after the end
        except BrokerError as error:
            complain(error.detail)
            raise typer.Exit(exit_code(error)) from None
        except redis.exceptions.RedisError as error:
            complain(f"Redis refused: {error}")
            raise typer.Exit(STORAGE) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        return result
