"""A clock that is passed in."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Clock(NamedTuple):
    """Seconds from two clocks: a monotonic one for measuring, and the wall clock for display."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
