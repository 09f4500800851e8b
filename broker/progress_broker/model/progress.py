"""Reads the numbers of a `progress` object. A worker in another language may have put any values into it."""

from collections.abc import Mapping
from math import inf
from typing import Any


def number(value: object) -> float | None:
    """Return a value if it is a finite number from 0 on, else None."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf
    return float(value) if fits else None  # type: ignore[arg-type]


def reported_percent(progress: Mapping[str, Any]) -> float | None:
    """Return the percentage that a worker reported, 0 to 100, or None."""
    percent, current, total = (number(progress.get(name)) for name in ("percent", "current", "total"))
    if percent is None and current is not None and total:
        percent = current / total * 100
    return None if percent is None else min(100.0, percent)
