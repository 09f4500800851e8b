"""What is on its way to Redis: a batch stays as it is, under the same numbers, until it is acknowledged."""

from collections.abc import Sequence
from dataclasses import replace
from secrets import token_hex

from progress_broker.model.entry import Entry


class Outbox:
    """One batch at a time, and marks that are reached when all that came before them is acknowledged.

    Not locked: its owner does that.
    """

    def __init__(self) -> None:
        self.batch: list[Entry] | None = None
        self._producer = token_hex(8)
        self._seq = 0
        self._marks = self._batch_mark = self._reached = 0

    def mark(self) -> int:
        """Return a new mark."""
        self._marks += 1
        return self._marks

    @property
    def awaited(self) -> bool:
        """Whether a mark is not reached yet."""
        return self._marks > self._reached

    def reached(self, mark: int) -> bool:
        """Return whether all before a mark is acknowledged."""
        return self._reached >= mark

    def put(self, entries: Sequence[Entry], marks: int | None) -> None:
        """Make entries the batch; with it, once acknowledged, so many marks are reached. None leaves them for later."""
        if marks is not None:
            self._batch_mark = marks
        if not entries:
            self._reached = self._batch_mark
            return
        first, self._seq = self._seq + 1, self._seq + len(entries)
        numbered = enumerate(entries, start=first)
        self.batch = [replace(entry, producer=self._producer, seq=seq) for seq, entry in numbered]

    def acknowledged(self) -> None:
        """Note that the batch is stored."""
        self.batch = None
        self._reached = self._batch_mark

    @property
    def marks(self) -> int:
        """How many marks there are."""
        return self._marks
