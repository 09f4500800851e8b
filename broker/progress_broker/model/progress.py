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


def one_line(percent: float | None, current: float | None, total: float | None, unit: object) -> str:
    """Return a progress as people read it, such as `25.0 %, 1 of 4 rows`; an empty text if nothing is known."""
    parts = [] if percent is None else [f"{percent:.1f} %"]
    if current is not None:
        of = "" if total is None else f" of {total:,.10g}"
        parts.append(f"{current:,.10g}{of}" + (f" {unit}" if isinstance(unit, str) and unit.isprintable() else ""))
    return ", ".join(parts)
