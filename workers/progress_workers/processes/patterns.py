"""Reads progress from lines of output."""

import re
from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

from progress_broker.errors import InvalidInput

GROUPS = ("current", "total", "percent", "message", "unit")
"""The names that a pattern's groups may have; a pattern needs at least one of them."""
MAX_CHARS = 4096
"""How many characters of a line are examined."""

_NUMBERS = GROUPS[:3]
_COUNT = r"(\d{1,3}(?:,\d{3})+|\d{1,15})"
_RATIO = re.compile(rf"(?<![\w.,/:-]){_COUNT}(?:\s?/\s?|\s+of\s+){_COUNT}(?![\w/:-]|[.,]\d)")
_PERCENT = re.compile(r"(?<![\w.,/-])(\d{1,3}(?:[.,]\d{1,9})?)\s?%(?!\w)")
_ROUNDED = 1.0
"""How much a ratio and a percentage of the same progress may differ, in percentage points."""

ProgressUpdate = dict[str, Any]
"""The arguments for an operation's `update`; may be empty."""


class Pattern(NamedTuple):
    """How progress is read from lines."""

    find: Callable[[str, bool], ProgressUpdate]
    everywhere: bool
    """Whether every line is examined, or only those that are rewritten."""

    def read(self, line: str, *, unfinished: bool = False) -> ProgressUpdate:
        """Return the progress in a line. An `unfinished` line may continue, so a number at its very end is ignored."""
        return self.find(line[:MAX_CHARS], unfinished or len(line) > MAX_CHARS)


def make_pattern(given: str | re.Pattern[str] | None) -> Pattern | None:
    """Return the pattern for `auto`, `bars` or a regular expression with named groups; None for None and `off`.

    Raises `InvalidInput` for an invalid regular expression, or one without any of the named groups.
    """
    match given:
        case None | "off":
            return None
        case "auto" | "bars":
            return Pattern(_read_any, given == "auto")
    try:
        regex = re.compile(given)
    except re.error as error:
        raise InvalidInput(
            f"invalid pattern {given!r}: {error} (expected bars, auto, off or a regular expression)", field="pattern"
        ) from None
    if not set(regex.groupindex) & set(GROUPS):
        raise InvalidInput(
            f"invalid pattern {regex.pattern!r}: expected bars, auto, off or a regular expression with at least one of"
            f" the named groups {', '.join(GROUPS)}, for example (?P<current>…)",
            field="pattern",
        )
    return Pattern(lambda text, unfinished: _read_named(regex, text, unfinished), True)


def _read_any(text: str, unfinished: bool) -> ProgressUpdate:
    """Read `3/10`, `3 of 10` or `30%`. If a line has a ratio and a percentage that differ, the percentage wins."""
    found = _PERCENT.search(text)
    percent = None if found is None else _number(found[1], "percent")
    if percent is not None and percent > 100:
        percent = None
    ratio = _read_ratio(text, unfinished)
    if ratio and (percent is None or abs(100 * ratio["current"] / ratio["total"] - percent) <= _ROUNDED):
        return ratio
    return {} if percent is None else {"percent": percent}


def _read_ratio(text: str, unfinished: bool) -> ProgressUpdate:
    found = _RATIO.search(text)
    if found is None or (unfinished and found.end() == len(text)):
        return {}
    current, total = _number(found[1], "current"), _number(found[2], "total")
    if current is None or not total or current > total:
        return {}
    return {"current": current, "total": total}


def _read_named(regex: re.Pattern[str], text: str, unfinished: bool) -> ProgressUpdate:
    found = regex.search(text)
    if found is None:
        return {}
    moves: ProgressUpdate = {}
    for name in GROUPS:
        if name not in regex.groupindex or not found[name]:
            continue
        value = _number(found[name], name) if name in _NUMBERS else found[name].strip()
        if value is None or (name in _NUMBERS and unfinished and found.end(name) == len(text)):
            return {}
        moves[name] = value
    return moves


def _number(text: str, name: str) -> float | None:
    """Parse a number as people write it: 1,234 in a count, 12,5 in a percentage. Return None for other text."""
    text = text.strip().replace(",", "." if name == "percent" else "")
    try:
        number = float(text)
    except ValueError:
        return None
    if not isfinite(number):
        return None
    return int(number) if number.is_integer() else number
