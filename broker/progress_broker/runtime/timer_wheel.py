"""A timer wheel: many coarse timers for the price of one task. It drives pings, ages and stuck checks."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

RESOLUTION_S = 0.25
_YIELD_EVERY = 500  # ticks between two chances for the rest of the loop


class Ticking(Protocol):
    """What the wheel drives."""

    bucket: int
    """Where the wheel keeps it; the wheel's own."""

    def tick(self, now: float) -> float | None:
        """Do what is due; return the seconds until the next tick, or None for no more."""


class Wheel:
    """Timers in buckets of a quarter of a second. Adding and removing are O(1)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[int, set[Ticking]] = {}
        self._turned = self._bucket(clock())

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, item: Ticking, delay_s: float) -> None:
        """Let an item tick after a delay, or up to a resolution later."""
        item.bucket = max(self._bucket(self._clock() + delay_s) + 1, self._turned + 1)
        self._buckets.setdefault(item.bucket, set()).add(item)

    def remove(self, item: Ticking) -> None:
        """Let an item tick no more."""
        bucket = self._buckets.get(item.bucket)
        if bucket is not None:
            bucket.discard(item)
            if not bucket:
                del self._buckets[item.bucket]

    async def turn(self) -> None:
        """Tick all that is due."""
        now = self._clock()
        ticked = 0
        while self._turned < self._bucket(now):
            self._turned += 1
            for item in self._buckets.pop(self._turned, ()):
                try:
                    delay = item.tick(now)
                except Exception:
                    log.exception("a tick failed; there are no more of it")
                    continue
                if delay is not None:
                    self.add(item, delay)
                ticked += 1
                if ticked % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            await asyncio.sleep(RESOLUTION_S)
            await self.turn()

    @staticmethod
    def _bucket(moment: float) -> int:
        return int(moment / RESOLUTION_S)
