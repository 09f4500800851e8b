"""The task that works in an operation's block, which is cancelled when the work is asked to stop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

Register = Callable[[Callable[[Exception], None]], Callable[[], None]]


class TaskScope:
    """Cancels the task it was made in, once, until it is left; what `asyncio.timeout` does for time."""

    def __init__(self, on_cancel: Register) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an AsyncOperation's block is entered in a task, as `asyncio.run` makes one")
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._stopped: Exception | None = None
        self._forget = on_cancel(self._stop)

    def leave(self, error: BaseException | None) -> Exception | None:
        """Note that the block is left; return why the task was cancelled, if it was that which ends the block."""
        self._forget()
        task, self._task = self._task, None
        if task is None or self._stopped is None:
            return None
        # Somebody else may have cancelled the task as well: then it is theirs to handle.
        ours = task.uncancel() <= self._cancelling
        return self._stopped if ours and isinstance(error, asyncio.CancelledError) else None

    def _stop(self, error: Exception) -> None:
        with suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._interrupt, error)

    def _interrupt(self, error: Exception) -> None:
        if self._task is not None:
            self._stopped = error
            self._task.cancel()
