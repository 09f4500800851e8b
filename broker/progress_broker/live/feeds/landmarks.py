"""What a reader remembers of a feed, so that it can find after a loss up to where the feed still has what was read."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from progress_broker.model.position import order

EACH, LEVELS = 32, 20
"""Of the newest entries each is remembered, of those before them every second one, then every fourth, and so on: so
many at each level. 640 entries in all reach back over 30 million."""


class Landmark(NamedTuple):
    """An entry that was read.

    Its position alone proves nothing: two servers that accept writes at the same time may give it to different entries.
    """

    position: bytes
    content: int

    @classmethod
    def of(cls, entry: Sequence[Any]) -> "Landmark":
        """Return what is remembered of an entry `[id, [field, value, …]]`."""
        position, fields = entry
        return cls(position, hash(tuple(fields)))


class Landmarks:
    """Some entries that were read: each of the newest, and ever fewer of those before."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[deque[Landmark]] = [deque()]

    def __iter__(self) -> Iterator[Landmark]:
        """Yield them, oldest first."""
        return chain.from_iterable(reversed(self._levels))

    @property
    def newest(self) -> Landmark | None:
        """The last entry that was read, if there is any."""
        return next(chain.from_iterable(map(reversed, self._levels)), None)

    def add(self, entry: Sequence[Any]) -> None:
        """Remember the last entry of a read."""
        landmark = Landmark.of(entry)
        for level in self._levels:
            level.append(landmark)
            if len(level) <= EACH:
                return
            landmark = level.popleft()
            level.popleft()
        if len(self._levels) < LEVELS:
            self._levels.append(deque((landmark,)))

    def forget_after(self, position: bytes) -> None:
        """Forget what is newer than a position: the feed has lost it."""
        last = order(position)
        self._levels = [deque(it for it in level if order(it.position) <= last) for level in self._levels]
