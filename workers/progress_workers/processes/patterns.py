"""What a line of output says of the progress."""

import re
from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

from progress_broker.errors import Invalid

GROUPS = ("current", "total", "percent", "message", "unit")
"""Names of groups a pattern may have; it has one of them at least."""
MAX_CHARS = 4096
"""Characters of a line that are looked at."""

_NUMBERS = GROUPS[:3]
_COUNT = r"(\d{1,3}(?:,\d{3})+|\d{1,15})"
_RATIO = re.compile(rf"(?<![\w.,/:-]){_COUNT}(?:\s?/\s?|\s+of\s+){_COUNT}(?![\w/:-]|[.,]\d)")
_PERCENT = re.compile(r"(?<![\w.,/-])(\d{1,3}(?:[.,]\d{1,9})?)\s?%(?!\w)")
_ROUNDED = 1.0
"""How far, in percent, a ratio and a percentage that tell the same may be apart."""

Moves = dict[str, Any]
"""What an operation's `update` is to be told; empty if nothing."""


class Pattern(NamedTuple):
    """How progress is read from lines."""

    find: Callable[[str, bool], Moves]
    everywhere: bool
    """Whether each line is looked at, or only those that are rewritten."""

    def read(self, line: str, *, unfinished: bool = False) -> Moves:
        """Return what a line says. One that is `unfinished` may go on, so that a number at its very end is none yet."""
        return self.find(line[:MAX_CHARS], unfinished or len(line) > MAX_CHARS)


def make_pattern(given: str | re.Pattern[str] | None) -> Pattern | None:
    """Return what `auto`, `bars`, or a regular expression with named groups stands for; None for None and `off`.

    Raises `Invalid` for a regular expression that is none, or whose groups say nothing.
    """
    match given:
        case None | "off":
            return None
        case "auto" | "bars":
            return Pattern(_read_any, given == "auto")
    try:
        regex = re.compile(given)
    except re.error as error:
        raise Invalid(
            f"the pattern {given!r} is neither bars, auto nor off, and no regular expression: {error}", field="pattern"
        ) from None
    if not set(regex.groupindex) & set(GROUPS):
        raise Invalid(
            f"the pattern {regex.pattern!r} is neither bars, auto nor off, and as a regular expression it needs one of"
            f" the groups {', '.join(GROUPS)}: (?P<current>…)",
            field="pattern",
        )
    return Pattern(lambda text, unfinished: _read_named(regex, text, unfinished), True)


def _read_any(text: str, unfinished: bool) -> Moves:
    """Read `3/10`, `3 of 10` or `30%`. Where a line has both and they differ, the percentage is meant."""
    found = _PERCENT.search(text)
    percent = None if found is None else _number(found[1], "percent")
    if percent is not None and percent > 100:
        percent = None
    ratio = _read_ratio(text, unfinished)
    if ratio and (percent is None or abs(100 * ratio["current"] / ratio["total"] - percent) <= _ROUNDED):
        return ratio
    return {} if percent is None else {"percent": percent}


def _read_ratio(text: str, unfinished: bool) -> Moves:
    found = _RATIO.search(text)
    if found is None or (unfinished and found.end() == len(text)):
        return {}
    current, total = _number(found[1], "current"), _number(found[2], "total")
    if current is None or not total or current > total:
        return {}
    return {"current": current, "total": total}


def _read_named(regex: re.Pattern[str], text: str, unfinished: bool) -> Moves:
    found = regex.search(text)
    if found is None:
        return {}
    moves: Moves = {}
    for name in GROUPS:
        if name not in regex.groupindex or not found[name]:
            continue
        value = _number(found[name], name) if name in _NUMBERS else found[name].strip()
        if value is None or (name in _NUMBERS and unfinished and found.end(name) == len(text)):
            return {}
        moves[name] = value
    return moves


def _number(text: str, name: str) -> float | None:
    """Return a number as people write it: 1,234 of a count, 12,5 of a percentage; None for what is none."""
    text = text.strip().replace(",", "." if name == "percent" else "")
    try:
        number = float(text)
    except ValueError:
        return None
    if not isfinite(number):
        return None
    return int(number) if number.is_integer() else number
