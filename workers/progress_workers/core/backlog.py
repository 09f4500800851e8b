"""Log lines and events on their way: bounded, the oldest given up first, and what was given up is said."""

from collections import deque
from typing import NamedTuple, get_args

from progress_broker.model import payloads
from progress_broker.model.entry import Entry
from progress_workers.values import number, text

LEVELS = frozenset(get_args(payloads.Log.model_fields["level"].annotation))
_SPELLINGS = {"warn": "warning", "err": "error", "fatal": "critical", "notset": "debug"}
_NUMBERED = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
MAX_LINES = 10_000
"""Lines kept of an operation while they can't be sent. Past it the oldest are dropped and counted."""
MAX_CHARS = 4 << 20
"""Characters kept of it in all, likewise."""


class Line(NamedTuple):
    """A line of an operation's log."""

    message: str
    level: str
    stage: str | None
    dropped: int = 0
    """How many lines before it were dropped, if it is the line that says so."""


class Backlog:
    """Lines, and events of the user's own, that wait to be sent. Not locked: its owner does that."""

    def __init__(self, max_lines: int = MAX_LINES, max_chars: int = MAX_CHARS) -> None:
        self._waiting: deque[Line | Entry] = deque()
        self._chars = 0
        self._dropped = 0
        self._max_lines, self._max_chars = max_lines, max_chars

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, one: Line | Entry) -> None:
        """Keep one more, at the cost of the oldest where there is no room."""
        self._waiting.append(one)
        self._chars += _size(one)
        while len(self._waiting) > 1 and (len(self._waiting) > self._max_lines or self._chars >= self._max_chars):
            self._chars -= _size(self._waiting.popleft())
            self._dropped += 1

    def take(self, most: int) -> list[Line | Entry]:
        """Remove and return the oldest, `most` at most, after a line that tells how many were dropped."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._chars -= sum(map(_size, taken))
        if self._dropped:
            said = f"{self._dropped} log lines or events were dropped: they came faster than they could be sent"
            taken.insert(0, Line(said, "warning", None, self._dropped))
            self._dropped = 0
        return taken

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()
        self._chars = self._dropped = 0


def level_of(value: object) -> str | None:
    """Return a log level as it is spelled here, also that of `logging.WARNING` or "WARN"; None for what is none."""
    if type(value) is str and value in LEVELS:
        return value
    numbered = number(value)
    if numbered is not None:
        return numbered_level(numbered)
    spelled = text(value, 32).strip().lower()
    spelled = _SPELLINGS.get(spelled, spelled)
    return spelled if spelled in LEVELS else None


def numbered_level(value: float) -> str:
    """Return the level that one of `logging`'s numbers stands for; one in between counts as the next lower."""
    return next((name for least, name in _NUMBERED if value >= least), "debug")


def _size(one: Line | Entry) -> int:
    return len(one.message) + len(one.stage or "") if isinstance(one, Line) else len(one.data)
