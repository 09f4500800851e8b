"""Single flight: many who want the same thing read at the same moment share one read."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Flights:
    """Reads under way, by what they read."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def share(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the read under `key` answers, started now unless it is under way; its errors reach all."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(read())
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        # One who stops waiting must not stop the others' read.
        answer: T = await asyncio.shield(task)
        return answer

    def _landed(self, key: Hashable, task: "asyncio.Task[Any]") -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # seen, also when all who waited have gone
