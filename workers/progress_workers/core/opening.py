"""What must be done at the broker before an operation can be reported. It can be done at once, or later, or again."""

from typing import NamedTuple

from progress_broker.errors import NotFound
from progress_broker.model.operation import NewOperation


class Opening(NamedTuple):
    """How to create or find an operation, and how to begin work on it."""

    operation: str
    new: NewOperation | None = None
    """What it is created with, unless it exists with the same values; None: it must exist."""
    traceparent: str = ""
    adopts: bool = False
    """Whether to take an operation that exists with other values as it is."""
    new_attempt: bool = False
    worker: str = ""
    """The name of the worker that begins a new attempt."""
    only_creates: bool = False
    """Whether another process works on it."""
    cancel_counts_from_s: float | None = None
    """If it was cancelled at this time or later, in seconds since 1970, the work has to stop. None: an operation that
    was cancelled before is other work."""


MISSED_S = 10.0
"""How long an operation that is missing is waited for, if another process has what it was created with."""
_TRIES = 4
"""How often in a row an operation is created again that is missing at once."""


class OpeningAgain:
    """Whether to open an operation again, because Redis has lost it. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self.opening: Opening | None = None
        """How it was opened."""
        self._tries = 0
        self._missed_at: float | None = None
        self.rejection: NotFound | None = None
        """What the broker said when it was missing at first; None once something is stored again."""

    def missed(self, now: float, rejection: NotFound) -> Opening | None:
        """Note that the operation is missing. Return how to open it again; None: it stays lost."""
        if self.opening is None:
            return None
        self._tries += 1
        if self._missed_at is None:
            self._missed_at, self.rejection = now, rejection
        if self.opening.new is None:
            return self.opening if now < self._missed_at + MISSED_S else None
        return self.opening if self._tries <= _TRIES else None

    def stored(self) -> None:
        """Note that something of it was stored."""
        self._tries, self._missed_at, self.rejection = 0, None, None
