"""An event loop in a thread of its own, in which the client works for programs that are not coroutines."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, contextmanager
from typing import Any, Generic, TypeVar

from progress_broker.runtime.tasks import end
from progress_client.backend import AT_EXIT, CLOSED, OTHER_PROCESS

T = TypeVar("T")

BATCH = 256
"""How many items are fetched ahead at most."""


class LoopThread:
    """Runs coroutines in a background thread, from its creation until `stop`."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stopping = asyncio.Event()
        self._pid, self._lock, self._stopped = os.getpid(), threading.Lock(), False
        work = (self._serve(started),)
        self._thread = threading.Thread(target=asyncio.run, args=work, name="progress-client", daemon=True)
        with _clear_at_exit():
            self._thread.start()
        self._loop = started.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; return its result or raise its error. A Ctrl-C cancels it."""
        future = self._submit(work)
        try:
            with _clear_at_exit():
                return future.result()
        except CancelledError:
            raise RuntimeError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T]) -> Iterator[T]:
        """Yield the items. They are fetched ahead and handed over many at a time: each time takes two threads' turns.

        The generator is closed with the iterator.
        """
        ahead = self.run(_begin(items))
        try:
            while batch := self.run(ahead.take()):
                yield from batch
        finally:
            # Not awaited: an iterator may be collected while the interpreter ends, when other threads no longer run.
            if not self._loop.is_closed() and os.getpid() == self._pid:
                self._loop.call_soon_threadsafe(ahead.cancel)

    def stop(self, last: Callable[[], Awaitable[None]]) -> None:
        """End the thread: cancel what runs in it, then await `last`."""
        with self._lock:
            if self._stopped:
                return
            self._last, self._stopped = last, True
            self._loop.call_soon_threadsafe(self._stopping.set)
        if not sys.is_finalizing():  # else the thread runs no more
            self._thread.join()

    def _submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        wrong = OTHER_PROCESS if os.getpid() != self._pid else AT_EXIT if sys.is_finalizing() else ""
        if not wrong:
            with self._lock:  # what is submitted before the end is cancelled by it
                if not self._stopped:
                    return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise RuntimeError(wrong or CLOSED)

    async def _serve(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()
        await end(*(asyncio.all_tasks() - {asyncio.current_task()}))
        await self._last()


@contextmanager
def _clear_at_exit() -> Iterator[None]:
    """Say it clearly if something fails because Python starts no more threads, such as those that look up a name."""
    if sys.is_finalizing():  # the thread would never get a turn
        raise RuntimeError(AT_EXIT)
    try:
        yield
    except RuntimeError as error:
        if threading.main_thread().is_alive():
            raise
        raise RuntimeError(AT_EXIT) from error


class _Ahead(Generic[T]):
    """Fetches items into a bounded queue."""

    def __init__(self, items: AsyncGenerator[T]) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue(BATCH)
        self._task = asyncio.create_task(self._fetch(items))

    async def take(self) -> list[T]:
        """Return the items that are there, one at least; none at the end. Raises the error of the generator."""
        if self._task.done() and self._queue.empty():
            return []
        batch = [await self._queue.get()]
        while not self._queue.empty():
            batch.append(self._queue.get_nowait())
        found = [item for item in batch if item is not None]
        if not found:
            await self._task
        return found

    def cancel(self) -> None:
        """Fetch no more."""
        self._task.cancel()

    async def _fetch(self, items: AsyncGenerator[T]) -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    if self._cancelled():  # the Redis client may have swallowed it
                        return
                    await self._queue.put(item)
        finally:
            if not self._cancelled():
                await self._queue.put(None)

    def _cancelled(self) -> bool:
        return self._task.cancelling() > 0


async def _begin(items: AsyncGenerator[T]) -> _Ahead[T]:
    return _Ahead(items)
