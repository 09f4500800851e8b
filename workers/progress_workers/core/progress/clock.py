"""Time, as something that is handed in."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Clock(NamedTuple):
    """Seconds from two sources: one that never goes back, to measure by, and the wall's, to show."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
