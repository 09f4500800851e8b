"""Plays events: sends each when it is due, and tells how late."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from progress_broker.replay.recording import Recorded
from progress_broker.replay.timeline import Timeline

_AT_ONCE = 200
"""How many events are sent at once, if they are due."""


class Sink(Protocol):
    """Where events are sent."""

    async def send(self, events: Sequence[Recorded]) -> None:
        """Send events that are due, in their order."""


class Lateness:
    """How late events were sent."""

    def __init__(self) -> None:
        self._by_ms: Counter[int] = Counter()

    def add(self, late_s: float) -> None:
        """Count an event."""
        self._by_ms[max(0, round(1000 * late_s))] += 1

    def percentile_ms(self, percent: float) -> int | None:
        """Return within how many milliseconds so many percent of the events were sent; None if there are none."""
        due = self._by_ms.total() * percent / 100
        for ms in sorted(self._by_ms):
            due -= self._by_ms[ms]
            if due <= 0:
                return ms
        return None


class Player:
    """Plays events to a sink. It can be asked how far it is."""

    def __init__(
        self,
        sink: Sink,
        timeline: Timeline,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.lateness = Lateness()
        self.sent = 0
        """How many events were sent."""
        self.position: bytes | None = None
        """The position of the last event that was sent."""
        self._sink, self._timeline, self._clock, self._sleep = sink, timeline, clock, sleep
        self._start: float | None = None
        self._due: list[tuple[float, Recorded]] = []

    async def play(self, events: Iterable[Recorded]) -> None:
        """Play events; those of a later call go on after them."""
        if self._start is None:
            self._start = self._clock()
        for recorded in events:
            due_s = self._start + self._timeline.due_s(recorded.event.position)
            if self._due and (due_s > self._clock() or len(self._due) >= _AT_ONCE):
                await self._send()
            while (left_s := due_s - self._clock()) > 0:
                await self._sleep(left_s)
            self._due.append((due_s, recorded))
        await self._send()

    async def play_parts(self, parts: AsyncIterable[Sequence[Recorded]]) -> None:
        """Play events that are read while the ones before them are played."""
        async for part in parts:
            await self.play(part)

    async def _send(self) -> None:
        due, self._due = self._due, []
        if not due:
            return
        now = self._clock()
        for due_s, _ in due:
            self.lateness.add(now - due_s)
        await self._sink.send([recorded for _, recorded in due])
        self.sent += len(due)
        self.position = due[-1][1].event.position
