"""What an `AsyncClient` has open in one event loop, from its first call until it is closed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from progress_broker.errors import BrokerError
from progress_broker.settings import Settings
from progress_client.address import locate, server_url
from progress_client.backend import CLOSED, Backend

T = TypeVar("T")

_CANCEL_AGAIN_S = 0.5
"""A cancellation may get lost: see `progress_broker/runtime/tasks.py`."""


class Opened:
    """A backend, and the calls that use it."""

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.calls: set[Call] = set()
        """The calls that wait now."""
        self.idle = asyncio.Event()
        """Set when the last call has ended."""
        self._settings = settings
        self._backend: Backend | None = None
        self._opening = asyncio.Lock()

    async def reach(self) -> Backend:
        """Return the backend; connect at the first call."""
        async with self._opening:
            if self._backend is None:
                self._backend = await _connect(self._settings)
            return self._backend

    async def ask(self, call: Callable[[Backend], Awaitable[T]]) -> T:
        """Return the answer to a call."""
        with Call(self):
            return await call(await self.reach())

    async def close(self) -> None:
        """End what waits, and close the connections."""
        self.closed = True
        while self.calls:
            for call in tuple(self.calls):
                call.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CANCEL_AGAIN_S):
                    await self.idle.wait()
        if self._backend is not None:
            await self._backend.close()


class Call:
    """A block in which a task waits for a backend. If that is closed, the block ends with a `RuntimeError`."""

    __slots__ = ("_before", "_cancels", "_opened", "_task")

    def __init__(self, opened: Opened) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("call an AsyncClient inside an asyncio task, such as one that `asyncio.run` starts")
        self._opened, self._task = opened, task
        self._before, self._cancels = task.cancelling(), 0

    def cancel(self) -> None:
        """End the wait. Another task calls this."""
        self._cancels += 1
        self._task.cancel()

    def __enter__(self) -> None:
        if self._opened.closed:
            raise RuntimeError(CLOSED)
        self._opened.calls.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened = self._opened
        opened.calls.discard(self)
        if not opened.closed:
            return
        if not opened.calls:
            opened.idle.set()
        for _ in range(self._cancels):
            self._task.uncancel()
        ours = isinstance(error, asyncio.CancelledError) and self._task.cancelling() <= self._before
        if (self._cancels and ours) or isinstance(error, BrokerError):  # that it was closed is the cause
            raise RuntimeError(CLOSED) from None


async def _connect(settings: Settings) -> Backend:
    if server_url(settings) is not None:
        from progress_client.over_http.over_http import OverHttp  # it needs the extra `http`

        return OverHttp(settings)
    from progress_client.over_redis import OverRedis

    return await OverRedis.open(locate(settings))
