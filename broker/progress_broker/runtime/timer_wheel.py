"""A timer wheel: one task drives many low-resolution timers, for pings, maximum ages and checks for stuck clients."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

RESOLUTION_S = 0.25
_YIELD_EVERY = 500  # after this many ticks, other tasks of the event loop run


class Tickable(Protocol):
    """An object that the wheel calls."""

    bucket: int
    """The wheel's bucket that has it. Only the wheel sets this."""

    def tick(self, now: float) -> float | None:
        """Do what is due; return the seconds until the next tick, or None to stop."""


class TimerWheel:
    """Timers in buckets of a quarter of a second. Adding and removing are O(1)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[int, tuple[int, set[Tickable]]] = {}  # with their own keys, which their items share
        self._turned = self._bucket(clock())

    def __len__(self) -> int:
        return sum(len(items) for _, items in self._buckets.values())

    def add(self, item: Tickable, delay_s: float) -> None:
        """Let an item tick after a delay. It may be late by up to `RESOLUTION_S`."""
        key = max(self._bucket(self._clock() + delay_s) + 1, self._turned + 1)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = key, set()
        item.bucket, items = bucket  # not `key`: an int of its own for each stream takes 32 bytes
        items.add(item)

    def remove(self, item: Tickable) -> None:
        """Stop an item."""
        bucket = self._buckets.get(item.bucket)
        if bucket is not None:
            bucket[1].discard(item)
            if not bucket[1]:
                del self._buckets[item.bucket]

    async def turn(self) -> None:
        """Call `tick` of every item that is due."""
        now = self._clock()
        ticked = 0
        while self._turned < self._bucket(now):
            self._turned += 1
            _, items = self._buckets.pop(self._turned, (0, ()))
            for item in items:
                try:
                    delay = item.tick(now)
                except Exception:
                    log.exception("a timer failed with an unexpected error and was stopped")
                    continue
                if delay is not None:
                    self.add(item, delay)
                ticked += 1
                if ticked % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)

    async def run(self) -> None:
        """Turn the wheel until cancelled."""
        while True:
            await asyncio.sleep(RESOLUTION_S)
            await self.turn()

    @staticmethod
    def _bucket(moment: float) -> int:
        return int(moment / RESOLUTION_S)
