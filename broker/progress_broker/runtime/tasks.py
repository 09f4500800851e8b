"""Tasks with an owner: they are cancelled with their owner, and a task that must not end is restarted if it fails."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from progress_broker.runtime.backoff import backoff_s

log = logging.getLogger(__name__)

_CANCEL_AGAIN_S = 0.5


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, repeatedly, until they are done.

    One cancellation may get lost. `asyncio.wait_for`, which the Redis client uses to send, may swallow it before Python
    3.12. And if it coincides with a connection's timeout, the client raises the timeout instead.

    If the caller is cancelled meanwhile, as by its own owner that does so repeatedly, the tasks end first all the same.
    """
    loop, again_at = asyncio.get_running_loop(), 0.0
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in tasks if not task.done()]:
        if loop.time() >= again_at:
            again_at = loop.time() + _CANCEL_AGAIN_S
            for task in left:
                task.cancel()
        try:
            await asyncio.wait(left, timeout=max(0.0, again_at - loop.time()))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class SwallowedCancels:
    """Finds a cancellation of the current task that got lost (see `end`), for loops that would go on without it."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._known = _cancels_of(self._task)

    def check(self) -> None:
        """Raise `CancelledError` if the task was cancelled since, but runs on."""
        task = asyncio.current_task()
        if task is not self._task:  # an asynchronous generator may go on in another one
            self._task, self._known = task, _cancels_of(task)
        elif _cancels_of(task) > self._known:
            raise asyncio.CancelledError


def _cancels_of(task: "asyncio.Task[Any] | None") -> int:
    return 0 if task is None else task.cancelling()


class Tasks:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine as a task. It must handle its own errors."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep_running(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something that must not end. If it fails, log that and run it again."""

        async def again() -> None:
            tries = 0
            while True:
                try:
                    await run()
                except Exception:
                    log.exception("a background task failed with an unexpected error; this server restarts the task")
                await asyncio.sleep(backoff_s(tries))
                tries += 1

        self.spawn(again())

    async def close(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        # Those that are done may still be among them, until the event loop has run their callbacks.
        while left := [task for task in self._tasks if not task.done()]:
            await end(*left)
