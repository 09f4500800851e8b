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
