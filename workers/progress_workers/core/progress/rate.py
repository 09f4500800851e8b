"""How fast the work goes, and how long it still takes."""

from collections import deque
from math import isfinite
from typing import NamedTuple

WINDOW_S = 15.0
"""The rate covers this many seconds, or the last few items if each one takes long."""
MAX_ETA_S = 10 * 366 * 86_400
"""A longer remaining time is not reported, because it would only be a guess."""
_APART_S = 0.25
_FEWEST = 3
_SOONEST_S = 0.5


class Sample(NamedTuple):
    """How much was done at a time, in monotonic seconds."""

    at: float
    done: float


class Rate:
    """Units per second, over a window. If nothing is done for longer than usual, the rate falls."""

    def __init__(self, done: float = 0) -> None:
        self._before = float(done)
        self._samples: deque[Sample] = deque()

    def sample(self, now: float, done: float, began: Sample | None = None) -> float | None:
        """Return the rate at `now`, when `done` units are done; None while there are too few samples.

        `began` is when the work began, if that is known. Otherwise it begins with the first units that are done: they
        may have taken any time, and whoever set a count may have done them earlier.
        """
        done = float(done)
        if not isfinite(done):
            return None
        if not self._samples:
            if done <= self._before:
                self._before = done
                return None
            self._samples.append(began if began is not None and began.done <= done else Sample(now, done))
        if done < self._samples[-1].done:  # counting started again
            self._samples = deque([Sample(now, done)])
        elif done > self._samples[-1].done:
            self._add(Sample(now, done))
        return self._rate(now)

    def _add(self, sample: Sample) -> None:
        samples = self._samples
        if len(samples) > 2 and samples[-1].at - samples[-2].at < _APART_S:
            samples.pop()
        samples.append(sample)
        while len(samples) > _FEWEST and samples[1].at < sample.at - WINDOW_S:
            samples.popleft()

    def _rate(self, now: float) -> float | None:
        first, last = self._samples[0], self._samples[-1]
        done, took_s = last.done - first.done, last.at - first.at
        if done <= 0 or took_s < _SOONEST_S:
            return None
        usual_s = max(1.0, took_s / (len(self._samples) - 1))
        return done / (took_s + max(0.0, now - last.at - usual_s))


def eta_ms(left: float | None, rate: float | None) -> int | None:
    """Return how long the remaining work takes at a rate, in milliseconds; None if it can't be known."""
    if left is None or not rate:
        return None
    seconds = left / rate
    return round(1000 * seconds) if seconds <= MAX_ETA_S else None
