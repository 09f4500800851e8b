"""Backoff: wait after a failure, and retry requests to Redis until it answers."""

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
    """Return the result of `ask`; retry until Redis answers. Return None once the result is no longer `wanted`.

    `away` is called with each failure.
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
    """Delays that double from `first_s` to `most_s`. Each is shortened at random by up to half, so that clients that
    failed together do not retry together.

    It runs in threads next to a user's code, so it has its own random generator: the user may have seeded the global
    one.
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
        """Restart with the shortest delay."""
        self._next_s = self._first_s
