"""The operation that the running code works on, so that libraries can report without being handed it."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from progress_workers.base import Reporting
from progress_workers.null import NOTHING

T = TypeVar("T")

_entered: ContextVar[tuple[Reporting, ...]] = ContextVar("progress_operations", default=())
"""The operations whose blocks are entered, the innermost last. Not one with tokens: blocks may be left in any order."""


def current() -> Reporting:
    """Return the operation in whose block this code runs, or one that ignores all it is told.

    It belongs to the task or thread, as context variables do: `asyncio.to_thread` carries it along, a plain thread or
    an executor has to be handed the operation, or run in `contextvars.copy_context()`.

    >>> current().advance()  # nothing happens: there is none here
    >>> current().id
    ''
    """
    entered = _entered.get()
    return entered[-1] if entered else NOTHING


def track(items: Iterable[T]) -> Iterator[T]:
    """Return the items one by one, counting them for the current operation, if there is one."""
    return current().track(items)


def enter(operation: Reporting) -> None:
    """Make an operation the current one, until it is left."""
    _entered.set((*_entered.get(), operation))
    operation.trace.enter()


def leave(operation: Reporting) -> None:
    """Make an operation no longer the current one, nor the one to come back to."""
    _entered.set(tuple(entered for entered in _entered.get() if entered is not operation))
    operation.trace.leave()
