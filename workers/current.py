"""The operation that the running code works on, so that libraries can report without being handed it."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import TypeVar

from workers.nothing import NOTHING
from workers.reporting import Reporting

T = TypeVar("T")

_current: ContextVar[Reporting] = ContextVar("progress_operation", default=NOTHING)


def current() -> Reporting:
    """Return the operation in whose block this code runs, or one that ignores all it is told.

    It belongs to the task or thread, as context variables do: `asyncio.to_thread` carries it along, a plain thread or
    an executor has to be handed the operation, or run in `contextvars.copy_context()`.

    >>> current().advance()  # nothing happens: there is none here
    >>> current().id
    ''
    """
    return _current.get()


def track(items: Iterable[T]) -> Iterator[T]:
    """Return the items one by one, counting them for the current operation, if there is one."""
    return _current.get().track(items)


def enter(operation: Reporting) -> Token[Reporting]:
    """Make an operation the current one, until `leave` is given what this returns."""
    return _current.set(operation)


def leave(token: Token[Reporting]) -> None:
    """Make the operation before it the current one again."""
    # A generator that is closed elsewhere leaves its block in another context, which never knew of it.
    with suppress(ValueError):
        _current.reset(token)
