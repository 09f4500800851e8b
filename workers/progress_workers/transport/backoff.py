"""How long to leave alone what has just failed."""

import random
from collections.abc import Callable


class Backoff:
    """Delays that double from `first_s` to `most_s`, cut by up to half at random, to spread who failed together."""

    def __init__(self, first_s: float = 0.1, most_s: float = 2.0, *, chance: Callable[[], float] | None = None) -> None:
        self._first_s, self._most_s = first_s, most_s
        # Not the module's own generator: that one is the user's, who may have seeded it.
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
