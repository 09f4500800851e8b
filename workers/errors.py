"""What workers raise and catch besides the broker's own errors."""

import asyncio
from typing import Any, NamedTuple


class Stop(NamedTuple):
    """That someone asked the work to stop, and what they said."""

    reason: str | None = None
    by: str | None = None


class Cancelled(Exception):
    """The operation's work was asked to stop. Leaving the block with it ends the operation as `cancelled`."""

    def __init__(self, operation: str, reason: str | None = None, by: str | None = None) -> None:
        super().__init__(f"operation {operation} was cancelled" + (f": {reason}" if reason else ""))
        self.operation = operation
        self.reason = reason
        self.by = by

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.operation, self.reason, self.by)  # a pool sends it from process to process


def is_cancellation(error: BaseException) -> bool:
    """Return whether an exception means that the work was stopped, not that it went wrong."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_cancellation, error.exceptions))
    return isinstance(error, Cancelled | asyncio.CancelledError | KeyboardInterrupt | GeneratorExit)
