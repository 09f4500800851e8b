"""`run_process_async`: a command as a part of the work of an asyncio task."""

import asyncio
import contextvars
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Unpack

from progress_workers.processes.run import RunOptions, run_with
from progress_workers.processes.running import Running


async def run_process_async(command: Sequence[str], **options: Unpack[RunOptions]) -> int:
    """Run a command to its end, and report its output, as `run_process` does, with the same options.

    Cancelling the task ends the command, as cancelling the operation does: SIGTERM, then SIGKILL after `grace_s`
    seconds. The task ends when the command has ended; a second cancel of the task kills the command at once. `on_line`
    is called in another thread.
    """
    stopper, context = _Stopper(), contextvars.copy_context()
    # A thread of its own: those of the loop's executor are few, and commands may run for hours.
    executor = ThreadPoolExecutor(1, thread_name_prefix="progress-command")
    run = partial(context.run, run_with, command, stopper.started, **options)
    work = asyncio.get_running_loop().run_in_executor(executor, run)
    executor.shutdown(wait=False)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            (stopper.stop if cancelled is None else stopper.kill)(error)
            cancelled = cancelled or error
    if cancelled is None:
        return work.result()
    work.exception()  # else it would be logged as one that nobody has seen
    raise cancelled


class _Stopper:
    """Ends a command that another thread runs, or is about to start."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: Running | None = None
        self._reason: BaseException | None = None

    def started(self, running: Running) -> None:
        """Note that the command can be stopped now."""
        with self._lock:
            self._running, reason = running, self._reason
        if reason is not None:
            running.stop(reason)

    def stop(self, reason: BaseException) -> None:
        """End the command, as soon as it has started."""
        with self._lock:
            self._reason, running = reason, self._running
        if running is not None:
            running.stop(reason)

    def kill(self, reason: BaseException) -> None:
        """Kill the command."""
        with self._lock:
            running = self._running
        if running is not None:
            running.kill()
