"""Numbers: what counts, totals and percentages are made of."""

import operator

from progress_workers.values.guard import attempt

LARGEST = 1e100
"""What is larger is no count. So sums of counts never overflow."""
_EXACT = 1 << 53


def number(value: object) -> float | None:
    """Return a finite number, of whatever numeric type, as an `int` or `float` that every reader of JSON knows.

    Returns None for all else, such as NaN, infinities and texts. Never raises.
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
    return plain(found) if -LARGEST <= found <= LARGEST else None  # which NaN is not


def plain(value: float) -> float:
    """Return a number that all readers of JSON read alike: integers beyond 53 bits as floats."""
    return value if type(value) is float or -_EXACT <= value <= _EXACT else float(value)


def _convert(value: object) -> float:
    kind = type(value)
    if issubclass(kind, int):
        return int.__int__(value)  # type: ignore[arg-type] # without what a subclass makes of it
    if issubclass(kind, float):
        return float.__float__(value)  # type: ignore[arg-type]
    try:
        return int.__int__(operator.index(value))  # type: ignore[arg-type]
    except TypeError:  # not an integer, of whatever size
        return float(value)  # type: ignore[arg-type]
