"""The exceptions that workers raise and catch, in addition to the broker's own errors."""

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from progress_workers.values import attempt, number, text

_MAX_GROUPED = 1000
"""How many exceptions of an exception group are examined."""
_REASONS = (
    (asyncio.CancelledError, "its task was cancelled"),
    (KeyboardInterrupt, "it was interrupted, for example by Ctrl-C"),
    (GeneratorExit, "its generator was closed before it finished"),
)


class CancelInfo(NamedTuple):
    """A request to stop the work, with the reason and the requester."""

    reason: str | None = None
    by: str | None = None


class Cancelled(Exception):
    """The operation's work was asked to stop. A block that raises it ends the operation as `cancelled`."""

    def __init__(self, operation: str, reason: str | None = None, by: str | None = None) -> None:
        super().__init__(f"operation {operation} was cancelled" + (f": {reason}" if reason else ""))
        self.operation = operation
        self.reason = reason
        self.by = by

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.operation, self.reason, self.by)  # process pools pickle it


def is_cancellation(error: BaseException) -> bool:
    """Return whether an exception means that the work was stopped, and not that it failed."""
    kinds = (Cancelled, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
    return all(isinstance(each, kinds) for each in grouped(error))


def cancel_reason(error: BaseException) -> str | None:
    """Return why the work was stopped, for people to read; None if the exception has no reason."""
    first = next(grouped(error), error)
    own = attempt(lambda: getattr(first, "reason", None), otherwise=lambda _: None)
    if own is not None:
        return text(own)
    if isinstance(first, Cancelled):
        return None
    said = "" if isinstance(first, KeyboardInterrupt) else text(first)  # such as from `task.cancel("shutting down")`
    return said or None


def describe_cancel(error: BaseException) -> str:
    """Return a description of an exception that stopped the work, for when nobody gave a reason."""
    first = next(grouped(error), error)
    return next((said for kind, said in _REASONS if isinstance(first, kind)), "it was cancelled")


def exited_well(error: BaseException | None) -> bool:
    """Return whether an exception ends a process with status 0, as `sys.exit()` and `sys.exit(0)` do."""
    if not isinstance(error, SystemExit):
        return False
    code = attempt(lambda: error.code, otherwise=lambda fault: fault)
    return code is None or (
        issubclass(type(code), int) and number(code) == 0
    )  # any other code is printed, and the status is 1


def describe_exit(error: SystemExit) -> str:
    """Return the argument of `sys.exit`, for people to read."""
    code = attempt(lambda: error.code, otherwise=lambda fault: fault)
    return f"it exited with status {int(code or 0)}" if code is None or isinstance(code, int) else text(code)


def grouped(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, including nested groups; otherwise yield the exception itself."""
    return islice(_leaves(error), _MAX_GROUPED)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(reversed(each.exceptions))
        else:
            yield each
