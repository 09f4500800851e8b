"""What `Operation` and `AsyncOperation` share besides reporting: they can be the current operation elsewhere, too."""

from collections.abc import Callable
from typing import ParamSpec, Self, TypeVar

from progress_workers.base import BaseOperation
from progress_workers.current import activate, deactivate
from progress_workers.wrapped import Join, Wrapped

P = ParamSpec("P")
R = TypeVar("R")


class SharedOperation(BaseOperation):
    """An operation that functions in other threads and processes, and code without a block, report to by `current`."""

    def wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function, changed to report to this operation: `current()` is this operation during its calls.

        For threads and processes of pools: `executor.map(op.wrap(work), items)`; `asyncio.to_thread` needs no wrap. In
        another process, spawned ones too, each call joins the operation, counts its own part, and waits until that is
        stored; it can be pickled if the function can. If the operation can't be joined there, the function runs without
        being reported.
        """
        return Wrapped(function, self, self._join())

    def activate(self) -> Self:
        """Make this the current operation wherever no block is entered, in all threads, until it ends.

        For notebooks, whose cells can't share a block. A later `activate` of another operation takes its place.

            >>> from progress_workers import Operation, current
            >>> op = Operation.start("explore").activate()
            >>> current().log("from any cell")
            >>> op.succeed()
        """
        activate(self)
        return self

    def deactivate(self) -> None:
        """Undo `activate`."""
        deactivate(self)

    def _join(self) -> Join:
        """Return the function that joins an operation from another process."""
        join: Join = getattr(type(self), "attach")  # noqa: B009 - this class has none
        return join
