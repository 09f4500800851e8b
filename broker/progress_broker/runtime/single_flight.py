"""Single flight: callers that need the same data at the same time share one read."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """The reads in progress, by key."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def share(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the read for `key`, which is started unless it is in progress.

        If it fails, every caller gets the error.
        """
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(read())
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        # A caller that stops waiting must not cancel the read of the others.
        answer: T = await asyncio.shield(task)
        return answer

    def _forget(self, key: Hashable, task: "asyncio.Task[Any]") -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # mark it as retrieved, also if no caller waits any more
