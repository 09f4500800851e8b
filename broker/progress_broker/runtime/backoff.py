"""What has just failed is left alone for a while, and Redis is asked again until it is back."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from progress_broker.errors import BrokerError, StorageFull, StorageUnavailable

BACKOFF_S = (0.05, 2.0)

T = TypeVar("T")


def backoff_s(tries: int) -> float:
    """Return how long to wait before the next try: doubling from 50 ms to 2 s, with full jitter."""
    low, high = BACKOFF_S
    return random.uniform(low, min(high, low * 2 ** min(tries, 10)))


def _for_ever() -> bool:
    return True


def _unsaid(_: BrokerError) -> None:
    pass


async def until_back(
    ask: Callable[[], Coroutine[Any, Any, T]],
    wanted: Callable[[], object] = _for_ever,
    away: Callable[[BrokerError], None] = _unsaid,
) -> T | None:
    """Return what Redis answers, asking again until it is back; None once the answer is `wanted` no more.

    `away` is told of each failure.
    """
    tries = 0
    while wanted():
        try:
            return await ask()
        except (StorageUnavailable, StorageFull) as error:
            away(error)
        await asyncio.sleep(backoff_s(tries))
        tries += 1
    return None


class Backoff:
    """Delays that double from `first_s` to `most_s`, cut by up to half at random, to spread who failed together.

    It is for threads beside a user's code, so it keeps a generator of its own: the module's may have been seeded.
    """

    def __init__(self, first_s: float = 0.1, most_s: float = 2.0, *, chance: Callable[[], float] | None = None) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._chance = chance or random.Random().random
        self._next_s = first_s

    def failed(self) -> float:
        """Return the delay, in seconds, until the next try."""
        delay_s, self._next_s = self._next_s, min(self._most_s, self._next_s * 2)
        return delay_s * (1 - self._chance() / 2)

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._next_s > self._first_s

    def succeeded(self) -> None:
        """Begin again with the shortest delay."""
        self._next_s = self._first_s
