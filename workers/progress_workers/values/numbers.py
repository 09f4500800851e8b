"""Numbers: the values of counts, totals and percentages."""

import operator

from progress_workers.values.guard import attempt

LARGEST = 1e100
"""Larger numbers are not accepted as counts. So sums of counts never overflow."""
_EXACT = 1 << 53


def number(value: object) -> float | None:
    """Return a finite number of any numeric type as an `int` or `float` that every JSON reader understands.

    Returns None for anything else, such as NaN, infinities and texts. Never raises.
    """
    kind = type(value)
    if kind is int or kind is float:
        found: float = value  # type: ignore[assignment]
    elif issubclass(kind, str | bytes | bytearray) or value is None:
        return None
    else:
        converted = attempt(_convert, value, otherwise=lambda _: None)
        if converted is None:
            return None
        found = converted
    return plain(found) if -LARGEST <= found <= LARGEST else None  # false for NaN


def plain(value: float) -> float:
    """Return a number that all JSON readers read alike: integers beyond 53 bits become floats."""
    return value if type(value) is float or -_EXACT <= value <= _EXACT else float(value)


def _convert(value: object) -> float:
    kind = type(value)
    if issubclass(kind, int):
        return int.__int__(value)  # type: ignore[arg-type] # ignores what a subclass overrides
    if issubclass(kind, float):
        return float.__float__(value)  # type: ignore[arg-type]
    try:
        return int.__int__(operator.index(value))  # type: ignore[arg-type]
    except TypeError:  # not an integer
        return float(value)  # type: ignore[arg-type]
