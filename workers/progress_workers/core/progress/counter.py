"""A counter that any thread may use, without a lock and without losing a count."""

import itertools
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from threading import get_ident
from typing import Any, TypeVar

from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.core.progress.rate import Sample
from progress_workers.values import attempt, brief, number, type_name
from progress_workers.values.numbers import plain

T = TypeVar("T")

_tracks = itertools.count(-1, -1)
"""Slots of `track` loops. They are negative, because thread identities never are."""


class Counter:
    """How much is done, and the total.

    Each thread counts in its own slot, which no other thread writes to; each loop of `track` has its own slot too.
    Readers add up the slots. Therefore `+=`, which is not atomic, loses no counts here.
    """

    __slots__ = (
        "_base",
        "_counts",
        "_dirty_flag",
        "_given_current",
        "_given_total",
        "_monotonic",
        "began",
        "skipped",
        "total",
    )

    def __init__(
        self, dirty_flag: DirtyFlag, total: float | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._dirty_flag, self._monotonic = dirty_flag, monotonic
        self._counts: dict[int, float] = {}
        self._base: float = 0
        self._given_current = self._given_total = False
        self.began: Sample | None = None
        """When the first loop of `track` got its first item, and how much was done by then."""
        self.skipped: float = 0
        self.total: float | None = None
        self.set(total=total)

    @property
    def current(self) -> float:
        """How much is done."""
        with self._dirty_flag.lock:
            # list() is atomic, even while other threads count.
            return plain(max(0, self._base + sum(list(self._counts.values()))))

    @property
    def percent(self) -> float | None:
        """How much of the total is done, 0 to 100; None while the total is unknown."""
        total = self.total
        return max(0.0, min(100.0, 100.0 * self.current / total)) if total else None

    def advance(self, by: float = 1) -> None:
        """Count `by` more units as done."""
        # Loops call this for each item. The range check rejects negative, very large and infinite numbers, and NaN.
        if type(by) is int:
            if not 0 <= by <= 1_000_000_000_000_000:
                return self._correct(by)
        elif type(by) is not float or not 0.0 <= by <= 1e15:
            return self._correct(by)
        counts, me = self._counts, get_ident()
        try:
            counts[me] += by
        except KeyError:
            counts[me] = 0 + by
        if not self._dirty_flag.dirty:
            self._dirty_flag.mark_dirty()
        return None

    def skip(self, by: float = 1) -> None:
        """Count `by` more units as done without work."""
        taken = self._number("skip", by)
        if taken is None:
            return
        with self._dirty_flag.lock:
            taken = max(taken, -self.current)
            self._base += taken
            self.skipped = max(0, self.skipped + taken)
        self._dirty_flag.mark_dirty()

    def set(self, current: float | None = None, total: float | None = None) -> None:
        """Set how much is done, or the total; None changes nothing. The caller must mark the `DirtyFlag`.

        A negative total means that the total is unknown.
        """
        done, of = self.checked(current, total)
        with self._dirty_flag.lock:
            if done is not None:
                self._given_current = True
                self._base = done - sum(list(self._counts.values()))
            if of is not None:
                self._given_total = of >= 0
                self.total = of if self._given_total else None

    def continue_from(self, current: float, total: float | None) -> None:
        """Add what was done before. What was set here meanwhile, a count or a total, stays as it is."""
        with self._dirty_flag.lock:
            if not self._given_current:
                self._base += current
            if not self._given_total:
                self.set(total=total)

    def checked(self, current: object, total: object) -> tuple[float | None, float | None]:
        """Return the arguments of `set` as plain numbers; None for an invalid value, which also causes a warning."""
        done = None if current is None else self._number("current", current)
        if done is not None and done < 0:
            self._reject("current", current)
            done = None
        return done, None if total is None else self._number("total", total)

    @staticmethod
    def check(items: object) -> None:
        """Raise `TypeError` if a loop can't take these items."""
        if not any(hasattr(type(items), name) for name in ("__iter__", "__aiter__", "__getitem__")):
            steps = f": for {brief(items)} steps, track range({brief(items)})" if type(items) is int else ""
            raise TypeError(f"track is for items to loop over, not for {brief(items)}{steps}")

    def expect(self, items: object, given: float | None = None) -> None:
        """Add the number of items to the total, unless the total was set. What is already done is part of it.

        The number is the given one, else the items' length, if they have one. Raises `TypeError` if a loop can't take
        them.
        """
        self.check(items)
        length = self._length(items) if given is None else self.checked(given, None)[0]
        if length is not None:
            with self._dirty_flag.lock:
                if not self._given_total:
                    self.total = plain((self.current if self.total is None else self.total) + length)

    def _length(self, items: object) -> int | None:
        if not hasattr(type(items), "__len__"):
            return None
        length: int | None = attempt(len, items, otherwise=lambda _: None)
        if length is None:
            self._dirty_flag.warn(
                "track", f"track: len() failed for a {type_name(items)}, so its items are not added to the total"
            )
        return length

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; each counts as done when the next one is requested."""
        counts, slot, dirty_flag, done, begun = self._counts, next(_tracks), self._dirty_flag, 0, False
        try:
            for item in items:
                if not begun:
                    begun = self._begin()
                yield item
                done += 1
                counts[slot] = done
                if not dirty_flag.dirty:
                    dirty_flag.mark_dirty()
        finally:
            with dirty_flag.lock:
                self._base += counts.pop(slot, 0)

    async def track_async(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        """Yield the items; each counts as done when the next one is requested."""
        async for item in items:
            if self.began is None:
                self._begin()
            yield item
            self.advance()

    def _begin(self) -> bool:
        if self.began is None:
            self.began = Sample(self._monotonic(), float(self.current - self.skipped))
        return True

    def _correct(self, by: Any) -> None:
        """Count a number that is not an ordinary one: of another type, or negative. The count never goes below zero."""
        taken = self._number("advance", by)
        if taken is None:
            return
        with self._dirty_flag.lock:
            self._base += max(taken, -self.current)
        self._dirty_flag.mark_dirty()

    def _number(self, name: str, value: object) -> float | None:
        found = number(value)
        if found is None:
            self._reject(name, value)
        return found

    def _reject(self, name: str, value: object) -> None:
        self._dirty_flag.warn(
            name, f"the value {brief(value)} of {name} was ignored; expected a finite number, 0 or greater"
        )
