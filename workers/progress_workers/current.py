"""The current operation, so that libraries can report without receiving it as an argument."""

import inspect
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import NamedTuple, TypeVar

from progress_workers.base import BaseOperation
from progress_workers.null import NULL_OPERATION

T = TypeVar("T")

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_MANAGERS = ("contextlib", "_pytest", "pytest_asyncio")
"""The packages whose code resumes a generator as the two halves of a context manager."""


class _Entered(NamedTuple):
    operation: BaseOperation
    generator: FrameType | None
    """The frame of the generator that entered the block. It has no caller while the generator is suspended."""

    @property
    def active(self) -> bool:
        return self.generator is None or self.generator.f_back is not None


_entered: ContextVar[tuple[_Entered, ...]] = ContextVar("progress_operations", default=())
"""The operations whose blocks are entered, the innermost last. Blocks may exit in any order, so there are no tokens."""


_activated: BaseOperation | None = None
"""The operation that is current where no block is entered."""


def current() -> BaseOperation:
    """Return the operation in whose block this code runs. Outside a block, return one that ignores all reports.

    As with all context variables, the current operation belongs to the task or thread. `asyncio.to_thread` passes it
    on. For threads and processes of a pool, use `Operation.wrap`; for a plain thread, that, too, or pass the operation
    as an argument. A forked process inherits it; a spawned one does not, and joins the operation with
    `Operation.attach`.

    The block of a generator ends where the generator yields: while it is suspended, the operation of the code that
    loops over it is the current one, if it has one. For a generator that is a context manager of `contextlib` or a
    fixture of pytest, the block goes on.

        >>> current().advance()  # nothing happens: there is no operation here
        >>> current().id
        ''
    """
    entered = _entered.get()
    if not entered:
        return _outside()
    if entered[-1].active:
        return entered[-1].operation
    return next((each.operation for each in reversed(entered) if each.active), None) or _outside()


def track(
    items: Iterable[T], *, total: float | None = None, description: str | None = None, raise_on_cancel: bool = False
) -> Iterator[T]:
    """Return the items one by one, and count them for the current operation, if there is one.

    The options are those of `Operation.track`.
    """
    return current().track(items, total=total, description=description, raise_on_cancel=raise_on_cancel)


def activate(operation: BaseOperation) -> None:
    """Make an operation the current one wherever no block is entered, in place of another."""
    global _activated
    _activated = operation


def deactivate(operation: BaseOperation) -> None:
    """Undo `activate`, unless another operation took the place meanwhile."""
    global _activated
    if _activated is operation:
        _activated = None


def _outside() -> BaseOperation:
    operation = _activated
    if operation is None:
        return NULL_OPERATION
    if operation.ended:
        deactivate(operation)
        return NULL_OPERATION
    return operation


def enter(operation: BaseOperation) -> None:
    """Make an operation the current one, until `leave`."""
    _entered.set((*_entered.get(), _Entered(operation, _generator(inspect.currentframe()))))
    operation.trace.enter()


def leave(operation: BaseOperation) -> bool:
    """Leave the innermost block of an operation. Return whether it was the outermost one too."""
    entered = _entered.get()
    inside = [at for at, each in enumerate(entered) if each.operation is operation]
    if inside:
        _entered.set(entered[: inside[-1]] + entered[inside[-1] + 1 :])
    operation.trace.leave()
    return len(inside) < 2


def _generator(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the generator whose code enters a block in this frame; None if it is no generator's code."""
    while frame is not None:
        if _passes_on(frame):
            frame = frame.f_back
            continue
        if not frame.f_code.co_flags & _GENERATORS:
            return None
        if frame.f_back is None or not _passes_on(frame.f_back):
            return frame
        frame = frame.f_back  # a context manager, whose block is that of the code that uses it
    return None


def _passes_on(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package in _MANAGERS or package == "progress_workers"
