"""Counting that any thread may do, without a lock and without losing a count."""

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from math import inf, isfinite
from threading import RLock, get_ident
from typing import TypeVar

T = TypeVar("T")

_EXACT = 1 << 53
_tracks = itertools.count(-1, -1)
"""Slots of loops, below zero: a thread's identity is never negative."""


def plain(number: float) -> float:
    """Return a number, of whatever numeric type, as one that every reader of JSON knows."""
    if type(number) is float or (type(number) is int and -_EXACT <= number <= _EXACT):
        return number
    if not hasattr(number, "__float__"):
        raise TypeError(f"a number is needed, not {number!r}")
    try:
        return float(number)
    except OverflowError:
        return inf


class Pulse:
    """Whether something changed since the reporter last looked, and the lock for all that is not counting.

    `dirty` is cleared *before* the state is read and looked at *after* it is changed, so a change is either read
    or announced, with no lock between the two.
    """

    __slots__ = ("_wake", "dirty", "lock")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.dirty = False
        # Reentrant, as a signal handler may report in the middle of another report.
        self.lock = RLock()

    def touch(self) -> None:
        """Say that something changed."""
        if not self.dirty:
            self.dirty = True
            self._wake()

    def wake(self) -> None:
        """Have the reporter looked at, though no progress was made."""
        self._wake()


class Gauge:
    """How much is done, of how much.

    Each thread counts in a slot that nobody else writes to, and each loop of `track` in one of its own; who reads
    adds them up. That is why `+=`, which is not atomic, loses nothing here.
    """

    __slots__ = ("_base", "_counts", "_given_total", "_pulse", "skipped", "total")

    def __init__(self, pulse: Pulse, total: float | None = None) -> None:
        self._pulse = pulse
        self._counts: dict[int, float] = {}
        self._base: float = 0
        self._given_total = False
        self.skipped: float = 0
        self.total: float | None = None
        self.set(total=total)

    @property
    def current(self) -> float:
        """How much is done."""
        with self._pulse.lock:
            # list() is one step, whoever counts meanwhile.
            return plain(max(0, self._base + sum(list(self._counts.values()))))

    @property
    def percent(self) -> float | None:
        """How much of the total is done, 0 to 100, or None while that is unknown."""
        current, total = self.current, self.total
        if not total or not isfinite(total) or not isfinite(current):
            return None
        return max(0.0, min(100.0, 100.0 * current / total))

    def advance(self, by: float = 1) -> None:
        """Count `by` more as done."""
        if type(by) is not int and type(by) is not float:
            by = plain(by)
        counts, me = self._counts, get_ident()
        try:
            counts[me] += by
        except KeyError:
            counts[me] = 0 + by  # what is no number fails here, in its caller's hands
        if not self._pulse.dirty:
            self._pulse.touch()

    def skip(self, by: float = 1) -> None:
        """Count `by` more as done without work."""
        with self._pulse.lock:
            self._base += plain(by)
            self.skipped += plain(by)
        self._pulse.touch()

    def set(self, current: float | None = None, total: float | None = None) -> None:
        """Say how much is done, or of how much; None leaves it. The caller touches the pulse.

        A total below zero, or one that is no number (NaN), means that it is not known.
        """
        with self._pulse.lock:
            if current is not None:
                self._base = plain(current) - sum(list(self._counts.values()))
            if total is not None:
                self._given_total = plain(total) >= 0
                self.total = plain(total) if self._given_total else None

    def expect(self, items: object) -> None:
        """Count what has a length towards the total, unless the total was given."""
        if isinstance(items, Sized):
            with self._pulse.lock:
                if not self._given_total:
                    self.total = (self.total or 0) + len(items)

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; each counts as done when the next is asked for."""
        counts, slot, pulse, done = self._counts, next(_tracks), self._pulse, 0
        try:
            for item in items:
                yield item
                done += 1
                counts[slot] = done
                if not pulse.dirty:
                    pulse.touch()
        finally:
            with pulse.lock:
                self._base += counts.pop(slot, 0)

    async def track_async(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        """Yield the items; each counts as done when the next is asked for."""
        async for item in items:
            yield item
            self.advance()
