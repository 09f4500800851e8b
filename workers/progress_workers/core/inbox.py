"""Signals that arrived for an operation and wait to be read."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from progress_workers.core.wakeup import Wakeup

MAX_SIGNALS = 100
"""How many unread signals are kept. If more arrive, the oldest is dropped. Their stream keeps about as many."""


class Signal(NamedTuple):
    """A message to the work: `pause`, `resume`, or any other type that sender and worker agree on."""

    type: str
    data: Any = None
    by: str | None = None


class Inbox:
    """Signals in the order of arrival; each is read once, by the first reader."""

    def __init__(self) -> None:
        self._signals: deque[Signal] = deque(maxlen=MAX_SIGNALS)
        self._listeners: dict[Callable[[], None], None] = {}
        """The callbacks of waiting readers."""
        self._closed = False

    def put(self, signal: Signal) -> None:
        """Add a signal."""
        self._signals.append(signal)
        self._notify()

    def close(self) -> None:
        """Note that no further signal matters: the work has ended, or has to end."""
        self._closed = True
        self._notify()

    def after_fork(self) -> None:
        """Restart in a forked child: the readers belong to the parent."""
        self._listeners.clear()

    def each(self, timeout: float | None) -> Iterator[Signal]:
        """Yield signals as they arrive. End when the inbox is closed, or no signal arrived for `timeout` seconds."""
        wakeup = Wakeup()
        notify = wakeup.set
        self._listeners[notify] = None
        try:
            while True:
                wakeup.clear()
                closed = self._closed  # first: a signal that came before the end is still read
                with suppress(IndexError):  # another reader may have taken the last one
                    while True:
                        yield self._signals.popleft()
                if closed or not wakeup.wait(inf if timeout is None else timeout):
                    return
        finally:
            self._listeners.pop(notify, None)

    async def each_async(self, timeout: float | None) -> AsyncIterator[Signal]:
        """Yield signals as they arrive, as `each` does."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(changed.set)

        self._listeners[notify] = None
        try:
            while True:
                changed.clear()
                closed = self._closed
                with suppress(IndexError):  # another reader may have taken the last one
                    while True:
                        yield self._signals.popleft()
                if closed:
                    return
                async with asyncio.timeout(timeout):
                    await changed.wait()
        except TimeoutError:
            return
        finally:
            self._listeners.pop(notify, None)

    def _notify(self) -> None:
        for notify in list(self._listeners):
            notify()
