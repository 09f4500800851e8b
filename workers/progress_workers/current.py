"""The current operation, so that libraries can report without receiving it as an argument."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from progress_workers.base import BaseOperation
from progress_workers.null import NULL_OPERATION

T = TypeVar("T")

_entered: ContextVar[tuple[BaseOperation, ...]] = ContextVar("progress_operations", default=())
"""The operations whose blocks are entered, the innermost last. Blocks may exit in any order, so there are no tokens."""


def current() -> BaseOperation:
    """Return the operation in whose block this code runs. Outside a block, return one that ignores all reports.

    As with all context variables, the current operation belongs to the task or thread. `asyncio.to_thread` passes it
    on. For a plain thread or an executor, pass the operation as an argument, or use `contextvars.copy_context()`.

        >>> current().advance()  # nothing happens: there is no operation here
        >>> current().id
        ''
    """
    entered = _entered.get()
    return entered[-1] if entered else NULL_OPERATION


def track(items: Iterable[T]) -> Iterator[T]:
    """Return the items one by one, and count them for the current operation, if there is one."""
    return current().track(items)


def enter(operation: BaseOperation) -> None:
    """Make an operation the current one, until `leave`."""
    _entered.set((*_entered.get(), operation))
    operation.trace.enter()


def leave(operation: BaseOperation) -> None:
    """Remove an operation from the entered ones, so that it is no longer the current one."""
    _entered.set(tuple(entered for entered in _entered.get() if entered is not operation))
    operation.trace.leave()
