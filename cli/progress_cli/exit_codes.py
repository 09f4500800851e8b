"""The exit codes of commands, and the one place that turns errors into a line on standard error."""

import logging
import os
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import typer

from progress_broker.errors import (
    BrokerError,
    Gone,
    NotFound,
    SetupError,
    StorageFull,
    StorageUnavailable,
    Unauthenticated,
    is_temporary,
)
from progress_broker.extras import MissingExtra
from progress_cli.lazy import LazyGroup

OK = 0
FAILED = 1
REJECTED = 2
CANCELLED = 3
MISSING = 4
STORAGE = 5
INTERRUPTED = 130
PIPE_CLOSED = 141

EXIT_CODES = (
    "Exit codes: 0 success; 1 the tailed operation failed; 2 wrong usage or rejected input;"
    " 3 the tailed operation was cancelled; 4 the operation does not exist; 5 Redis or the server can't be reached, is"
    " full or is not suitable, or the setup or the credentials are wrong; 130 interrupted by Ctrl-C; 141 the reader of"
    " the output closed it."
    " `run` ends with the exit code of its command, and with 3 if it was cancelled from elsewhere."
    " `doctor` ends with 1 if it found warnings, and with 2 if it found faults."
    " `serve` waits for an unavailable Redis, and ends with 5 only for permanent errors."
    " `serve`, `demo`, `copy --follow` and `archive` without `--once` end with 0 when Ctrl-C or SIGTERM stops them."
)

_CODES: dict[type, int] = {
    NotFound: MISSING,
    Gone: MISSING,
    StorageUnavailable: STORAGE,
    StorageFull: STORAGE,
    SetupError: STORAGE,
    MissingExtra: STORAGE,
    Unauthenticated: STORAGE,
}


def exit_code(error: BrokerError) -> int:
    """Return the exit code of a command that failed with this error; by default the input was rejected."""
    otherwise = STORAGE if is_temporary(error) else REJECTED
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), otherwise)


def print_error(text: str) -> None:
    """Print an error on one line, with passwords in addresses replaced."""
    line = re.sub(r"://[^@/\s]*@", "://***@", " ".join(text.split()))
    PRINTER.get()(logging.ERROR, line)


def print_info(text: str) -> None:
    """Print an information on standard error: standard output is for results."""
    PRINTER.get()(logging.INFO, text)


def _plainly(_: int, text: str) -> None:
    typer.echo(f"progress-broker: {text}", err=True)


PRINTER: ContextVar[Callable[[int, str], None]] = ContextVar("voice", default=_plainly)
"""How errors and information are printed: as plain lines, or by a server with JSON logs as lines of its log."""


class Boundary(LazyGroup):
    """The group of all commands. Expected errors end none of them with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Turn its error into a line and an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a closed reader must raise here, not print noise at exit
        except BrokerError as error:
            print_error(error.detail)
            raise typer.Exit(exit_code(error)) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except Exception as error:
            if not _is_of_redis(error):
                raise
            print_error(f"Redis returned an error: {error}")
            raise typer.Exit(STORAGE) from None
        return result


def _is_of_redis(error: Exception) -> bool:
    """Return whether the error is redis-py's. It is not imported for that: it takes longer than all of `--version`."""
    module = sys.modules.get("redis.exceptions")
    return module is not None and isinstance(error, module.RedisError)
