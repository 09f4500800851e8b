"""Times as queries name them: `1h` ago, `2026-11-30T14:05:00Z`, or milliseconds."""

from datetime import datetime

from progress_broker.queries.list_cursor import LATEST
from progress_broker.runtime.durations import seconds

EARLIEST_MS = 100_000_000_000
"""In 1973. A smaller number is rather one of seconds, or a date without hyphens."""

_EXPECTED = "use a time ago such as 1h, a time such as 2026-11-30T14:05:00Z, or milliseconds since 1970"


def read_time(text: str, now_ms: int) -> int:
    """Return a time in milliseconds since 1970; raise `ValueError`."""
    if text[-1:] in ("s", "m", "h", "d"):
        return max(EARLIEST_MS, now_ms - round(1000 * seconds(text)))
    ms = int(text) if text.isdecimal() and text.isascii() else _milliseconds(text)
    if not EARLIEST_MS <= ms <= LATEST:
        raise ValueError(f"{text[:40]!r} is out of range: {_EXPECTED}")
    return ms


def _milliseconds(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time: {_EXPECTED}") from None
    if time.tzinfo is None:
        raise ValueError(f"{text[:40]!r} needs a time zone, such as Z: {_EXPECTED}")
    return round(1000 * time.timestamp())
