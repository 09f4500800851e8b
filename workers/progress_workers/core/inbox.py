"""Signals that have come for an operation and wait to be looked at."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

MAX_SIGNALS = 100
"""Signals kept until somebody looks; past it the oldest is dropped. The stream they come from keeps about as many."""


class Signal(NamedTuple):
    """What somebody sent to the work: `pause`, `resume`, or whatever they agreed on."""

    type: str
    data: Any = None
    by: str | None = None


class Inbox:
    """Signals in the order they came, each for whoever takes it first."""

    def __init__(self) -> None:
        self._signals: deque[Signal] = deque(maxlen=MAX_SIGNALS)
        self._listeners: dict[Callable[[], None], None] = {}
        """What tells each who waits. No lock: a thread that died with the interpreter may have held it."""
        self._closed = False

    def put(self, signal: Signal) -> None:
        """Add a signal."""
        self._signals.append(signal)
        self._tell()

    def close(self) -> None:
        """Say that none will follow that matters: the work has ended, or has to."""
        self._closed = True
        self._tell()

    def reborn(self) -> None:
        """Start anew in a forked child: the parent's readers are not here."""
        self._listeners.clear()

    def each(self, timeout: float | None) -> Iterator[Signal]:
        """Yield signals as they come, until none will or none came for `timeout` seconds."""
        news = SimpleQueue[None]()
        tell = partial(news.put, None)
        self._listeners[tell] = None
        try:
            while True:
                with suppress(IndexError):  # somebody else may have taken the last one
                    while True:
                        yield self._signals.popleft()
                if self._closed:
                    return
                news.get(timeout=None if timeout is None else max(0.0, timeout))
        except Empty:
            return
        finally:
            self._listeners.pop(tell, None)

    async def each_async(self, timeout: float | None) -> AsyncIterator[Signal]:
        """Yield signals as they come, as `each` does."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(news.set)

        self._listeners[tell] = None
        try:
            while True:
                news.clear()
                with suppress(IndexError):  # somebody else may have taken the last one
                    while True:
                        yield self._signals.popleft()
                if self._closed:
                    return
                async with asyncio.timeout(timeout):
                    await news.wait()
        except TimeoutError:
            return
        finally:
            self._listeners.pop(tell, None)

    def _tell(self) -> None:
        for tell in list(self._listeners):
            tell()
