"""Tracks which bytes of a file were read or written, in any order."""

from bisect import bisect_left, bisect_right

MAX_RANGES = 4096
"""How many separate ranges of one file are remembered. If there are more, the first ones are forgotten and count again.
"""


class PassedBytes:
    """The bytes of a file that were read or written, so that each one counts once, however often it is accessed."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> int:
        """Record the bytes from `start` up to `end`. Return how many of them are new."""
        if self._ends and start == self._ends[-1]:  # most files are read from front to back
            self._ends[-1] = end
            return end - start
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        known = zip(self._starts[first:last], self._ends[first:last], strict=True)
        fresh = end - start - sum(min(end, until) - max(start, since) for since, until in known)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
        if len(self._starts) > MAX_RANGES:
            del self._starts[0], self._ends[0]
        return fresh
