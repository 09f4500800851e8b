"""Log lines on their way: bounded, the oldest given up first, and what was given up is said."""

from collections import deque
from typing import NamedTuple, get_args

from broker import models
from broker.errors import Invalid

LEVELS = frozenset(get_args(models.Log.model_fields["level"].annotation))
MAX_LINES = 1000
"""Lines kept while they can't be sent. Past it the oldest are dropped and counted."""
MAX_CHARS = 1 << 20
"""Characters kept in all, likewise."""


class Line(NamedTuple):
    """A line of an operation's log."""

    message: str
    level: str
    stage: str | None
    dropped: int = 0
    """How many lines before it were dropped, if it is the line that says so."""


class LogBuffer:
    """Lines that wait to be sent. Not locked: its owner does that."""

    def __init__(self, max_lines: int = MAX_LINES, max_chars: int = MAX_CHARS) -> None:
        self._lines: deque[Line] = deque()
        self._chars = 0
        self._dropped = 0
        self._max_lines, self._max_chars = max_lines, max_chars

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, line: Line) -> None:
        """Keep a line, at the cost of the oldest ones where there is no room."""
        if line.level not in LEVELS:
            raise Invalid(f"a log level is one of {', '.join(sorted(LEVELS))}, not {line.level!r}", field="level")
        self._lines.append(line)
        self._chars += len(line.message)
        while len(self._lines) > 1 and (len(self._lines) > self._max_lines or self._chars > self._max_chars):
            self._chars -= len(self._lines.popleft().message)
            self._dropped += 1

    def take(self, most: int) -> list[Line]:
        """Remove and return the oldest lines, `most` at most, after one that tells how many were dropped."""
        taken = [self._lines.popleft() for _ in range(min(most, len(self._lines)))]
        self._chars -= sum(len(line.message) for line in taken)
        if self._dropped:
            said = f"{self._dropped} log lines were dropped: they came faster than they could be sent"
            taken.insert(0, Line(said, "warning", None, self._dropped))
            self._dropped = 0
        return taken

    def clear(self) -> None:
        """Forget every line."""
        self._lines.clear()
        self._chars = self._dropped = 0
