"""The sum of stages, and how a percentage is shown."""

from collections.abc import Iterable
from math import inf
from typing import Any

from progress_workers.values import LARGEST


def known(value: object) -> float | None:
    """Return a value if it is a number, 0 or greater. Workers in other languages may have written any value."""
    return value if isinstance(value, int | float) and 0 <= value <= LARGEST else None


def roll_up(stages: Iterable[dict[str, Any]]) -> float | None:
    """Return the weighted sum of described stages, 0 to 100; None if there are none."""
    done = whole = 0.0
    for stage in stages:
        weight = known(stage.get("weight")) or 1.0
        whole += weight
        done += weight * min(100.0, known(stage.get("percent")) or 0.0)
    return done / whole if 0 < whole < inf else None


def shown(percent: float) -> float:
    """Return a percentage cut, not rounded, to two digits: only complete work shows 100."""
    return int(percent * 100 + 1e-9) / 100  # 33.8 * 100 is a little less than 3380
