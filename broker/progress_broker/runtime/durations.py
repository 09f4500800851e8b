"""Durations as people write them: `90`, `45s`, `30m`, `1h`, `7d`."""

import re

from progress_broker.errors import InvalidInput

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(text: str) -> float:
    """Return a duration in seconds; raise `InvalidInput` for other text."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise InvalidInput(f"invalid duration {text!r}: use 45s, 30m, 1h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def shown(duration_s: float) -> str:
    """Return a duration as people write it, in its largest whole unit: `7d`, `90s`."""
    for unit in ("d", "h", "m"):
        if duration_s >= _UNITS_S[unit] and duration_s % _UNITS_S[unit] == 0:
            return f"{duration_s / _UNITS_S[unit]:g}{unit}"
    return f"{duration_s:g}s"
