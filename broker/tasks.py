"""Tasks that belong to someone: every one is ended with its owner, and the death of one that must live is noticed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from broker.feed import backoff_s

log = logging.getLogger(__name__)

_CANCEL_AGAIN_S = 0.5


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
            for task in self._tasks:
                task.cancel()
            # Again if need be: one that meets a connection's own timeout comes out of the client as that error.
            await asyncio.wait(self._tasks, timeout=_CANCEL_AGAIN_S)
