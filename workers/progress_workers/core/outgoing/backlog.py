"""A bounded buffer of log lines and events. If it is full, the oldest are dropped, and a log line says how many."""

from collections import deque
from typing import NamedTuple, get_args

from progress_broker.model import payloads
from progress_broker.model.entry import NewEvent
from progress_workers.values import number, text

LEVELS = frozenset(get_args(payloads.Log.model_fields["level"].annotation))
_SPELLINGS = {"warn": "warning", "err": "error", "fatal": "critical", "notset": "debug"}
_NUMBERED = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
MAX_LINES = 10_000
"""How many lines of an operation are buffered while they can't be sent. If more arrive, the oldest are dropped."""
MAX_CHARS = 4 << 20
"""How many characters are buffered in total. If more arrive, the oldest lines are dropped."""


class Line(NamedTuple):
    """A line of an operation's log."""

    message: str
    level: str
    stage: str | None
    dropped: int = 0
    """How many lines before it were dropped, if this line reports that."""


class Backlog:
    """Log lines and custom events that wait to be sent. It is not thread-safe: its owner must hold a lock."""

    def __init__(self, max_lines: int = MAX_LINES, max_chars: int = MAX_CHARS) -> None:
        self._waiting: deque[Line | NewEvent] = deque()
        self._chars = 0
        self._dropped = 0
        self._max_lines, self._max_chars = max_lines, max_chars

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, one: Line | NewEvent) -> None:
        """Add one entry. If there is no room, drop the oldest."""
        self._waiting.append(one)
        self._chars += _size(one)
        while len(self._waiting) > 1 and (len(self._waiting) > self._max_lines or self._chars >= self._max_chars):
            self._chars -= _size(self._waiting.popleft())
            self._dropped += 1

    def take(self, most: int) -> list[Line | NewEvent]:
        """Remove and return the oldest entries, at most `most`. If some were dropped, a line about it comes first."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._chars -= sum(map(_size, taken))
        if self._dropped:
            said = (
                f"{self._dropped} log lines or events were dropped because they were reported faster than they"
                " could be sent"
            )
            taken.insert(0, Line(said, "warning", None, self._dropped))
            self._dropped = 0
        return taken

    def clear(self) -> None:
        """Remove all entries."""
        self._waiting.clear()
        self._chars = self._dropped = 0


def level_of(value: object) -> str | None:
    """Return the name of a log level, also for `logging.WARNING` or "WARN"; None if it is not a level."""
    if type(value) is str and value in LEVELS:
        return value
    numbered = number(value)
    if numbered is not None:
        return numbered_level(numbered)
    spelled = text(value, 32).strip().lower()
    spelled = _SPELLINGS.get(spelled, spelled)
    return spelled if spelled in LEVELS else None


def numbered_level(value: float) -> str:
    """Return the level for one of `logging`'s numbers; a number in between counts as the next lower level."""
    return next((name for least, name in _NUMBERED if value >= least), "debug")


def _size(one: Line | NewEvent) -> int:
    return len(one.message) + len(one.stage or "") if isinstance(one, Line) else len(one.data)
