"""Tasks that belong to someone: every one is ended with its owner, and the death of one that must live is noticed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from progress_broker.runtime.backoff import backoff_s

log = logging.getLogger(__name__)

_CANCEL_AGAIN_S = 0.5


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks until they are done.

    Once is not enough: `asyncio.wait_for` before Python 3.12 may forget a cancellation, and Redis' client sends within
    it; and one that meets a connection's own timeout comes out of that client as that error.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)


class Tasks:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something to its end, which sees to its own errors."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep_up(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something that must not end; if it does, say so and run it again."""

        async def again() -> None:
            tries = 0
            while True:
                try:
                    await run()
                except Exception:
                    log.exception("a task that must not end died; it is started again")
                await asyncio.sleep(backoff_s(tries))
                tries += 1

        self.spawn(again())

    async def close(self) -> None:
        """End them all."""
        while self._tasks:
            await end(*self._tasks)
