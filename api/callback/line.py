"""The line before a back end: so many are served at a time, some wait, and the rest are told when to come."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from broker.errors import AuthorizerUnavailable

T = TypeVar("T")

LONGEST_S = 30.0
"""Nobody is told to come later than this."""

_WAITING_A_PLACE = 16
"""So many may wait for each place, at most."""

_WEIGHT = 0.1
"""What the newest has to say in how long one takes."""


class Line(Generic[T]):
    """Places, and those who wait for one. Who would wait for too long finds out at once, and is told its turn."""

    def __init__(self, places: Iterable[T], longest_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle = list(places)
        self._places = len(self._idle)
        self._free = asyncio.Semaphore(self._places)
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._waiting = 0
        self._takes_s = 0.0
        self._turn = clock()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[T]:
        """Have a place; raise `AuthorizerUnavailable` if there is none for long, with a turn of one's own."""
        await self._wait()
        place = self._idle.pop()  # the one left last, whose connection is likeliest to be open
        began = self._clock()
        try:
            yield place
        finally:
            self._idle.append(place)
            self._free.release()
            self._takes_s += _WEIGHT * (self._clock() - began - self._takes_s)

    async def _wait(self) -> None:
        waiting = self._waiting + self._free.locked()
        if waiting > _WAITING_A_PLACE * self._places or waiting * self._each_s > self._longest_wait_s:
            raise self._full()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise self._full() from None
        finally:
            self._waiting -= 1

    def _full(self) -> AuthorizerUnavailable:
        detail = "too many ask to come in just now: come back in a moment"
        return AuthorizerUnavailable(detail, retry_s=self._next_turn_s())

    @property
    def _each_s(self) -> float:
        """About how long it takes until another is served."""
        return self._takes_s / self._places

    def _next_turn_s(self) -> float:
        """Return how long from now the next who is refused may come: after those refused before."""
        now = self._clock()
        self._turn = min(max(self._turn, now + self._longest_wait_s) + self._each_s, now + LONGEST_S)
        wait_s = self._turn - now
        return wait_s if wait_s < LONGEST_S else random.uniform(LONGEST_S / 2, LONGEST_S)
