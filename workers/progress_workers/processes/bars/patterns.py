"""The patterns that a user may give: which lines are read, and how."""

import re
from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

from progress_broker.errors import InvalidInput
from progress_workers.processes.bars.readings import Reading, plain, read

GROUPS = ("current", "total", "percent", "message", "unit")
"""The names that a pattern's groups may have; a pattern needs at least one of them."""
MAX_CHARS = 4096
"""How many characters of a line are examined."""
_NUMBERS = GROUPS[:3]


class Pattern(NamedTuple):
    """How progress is read from lines."""

    find: Callable[[str, bool], Reading | None]
    everywhere: bool
    """Whether every line is examined, or only those that are rewritten."""

    def read(self, line: str, *, unfinished: bool = False) -> Reading | None:
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
            return Pattern(read, given == "auto")
    try:
        regex = re.compile(given)
    except (re.error, TypeError) as error:
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


def _read_named(regex: re.Pattern[str], text: str, unfinished: bool) -> Reading | None:
    found = regex.search(text)
    if found is None:
        return None
    values: dict[str, Any] = {}
    for name in GROUPS:
        if name not in regex.groupindex or not found[name]:
            continue
        value = _number(found[name], name) if name in _NUMBERS else found[name].strip()
        if value is None or (name in _NUMBERS and unfinished and found.end(name) == len(text)):
            return None
        values[name] = value
    return Reading(**values) if values else None


def _number(text: str, name: str) -> float | None:
    """Parse a number as people write it: 1,234 in a count, 12,5 in a percentage. Return None for other text."""
    text = text.strip().replace(",", "." if name == "percent" else "")
    try:
        number = float(text)
    except ValueError:
        return None
    return plain(number) if isfinite(number) else None
