"""An allowance: how much of something a client may do, at once and over time."""

import time
from collections.abc import Callable


class Allowance:
    """A bucket of tokens, which may run into debt."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens = burst
        self._at = clock()

    def take(self) -> float:
        """Take one; return the seconds until it would have been there: 0 if it was."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)
