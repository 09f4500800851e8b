"""What of a spool file is still to be sent: its records in order, apart from those of operations that are held back."""

from collections import deque
from collections.abc import KeysView
from typing import NamedTuple

from progress_broker.model.publish import Publish
from progress_workers.core.opening import Opening
from progress_workers.spool.file import SpoolFile
from progress_workers.spool.records import decode


class Record(NamedTuple):
    """One record that was read."""

    key: str
    content: Opening | Publish
    at: int
    """Its place in the file."""

    @property
    def operation(self) -> str:
        """The id of its operation."""
        return self.content.operation


class Unsent:
    """The records of one file that are not sent yet.

    Order counts within one operation only. So an operation that can't be sent now is held back, and the others go on.
    Of what is held back, only the places are kept in memory.
    """

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self._read_to = file.sent
        self._damaged = False
        self._taken: dict[int, str] = {}
        self._again: dict[str, deque[int]] = {}
        """The places of records to read again, before the rest of the file, by operation."""
        self._held: dict[str, deque[int]] = {}

    @property
    def held(self) -> KeysView[str]:
        """The operations that are held back."""
        return self._held.keys()

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing to take, unless what is held back is tried again."""
        return not self._again and (self._damaged or self._read_to == self._file.size)

    @property
    def damaged(self) -> bool:
        """Whether the file can't be read to its end."""
        return self._damaged

    def take(self) -> Record | None:
        """Return the next record of an operation that is not held back; None if there is none.

        It has to be given to `done` or to `hold`, or all that were taken to `put_back`.
        """
        while not self.exhausted:
            at = self._next_place()
            found = self._file.read(at)
            if found is None:
                self._damaged = True
                continue
            data, end = found
            self._read_to = max(self._read_to, end)
            try:
                record = Record(*decode(data), at)
            except (ValueError, TypeError, LookupError, AttributeError):
                continue  # the checksum is right, so another program wrote it
            if record.operation in self._held:
                self._held[record.operation].append(at)
                continue
            self._taken[at] = record.operation
            return record
        return None

    def _next_place(self) -> int:
        if not self._again:
            return self._read_to
        operation = next(iter(self._again))
        places = self._again.pop(operation)
        at = places.popleft()
        if places:  # after the others, so that those of many operations can be sent together
            self._again[operation] = places
        return at

    def done(self, record: Record) -> None:
        """Note that a record is sent, or never will be."""
        self._taken.pop(record.at, None)

    def hold(self, operation: str, record: Record | None = None) -> None:
        """Hold an operation back: this record, which was taken, and all that follow."""
        places = [*self._held.pop(operation, ()), *self._again.pop(operation, ())]
        if record is not None:
            self.done(record)
            places.append(record.at)
        self._held[operation] = deque(sorted(places))

    def try_again(self) -> None:
        """Hold nothing back any more."""
        held, self._held = self._held, {}
        for operation, places in held.items():
            if places:
                self._again.setdefault(operation, deque()).extendleft(reversed(places))

    def put_back(self) -> None:
        """Have all records that were taken, and not sent, taken again."""
        taken, self._taken = self._taken, {}
        for at, operation in reversed(taken.items()):
            self._again.setdefault(operation, deque()).appendleft(at)

    def save(self) -> None:
        """Note in the file up to where everything is sent."""
        first = [*list(self._taken)[:1], *(places[0] for places in self._again.values())]
        first += [places[0] for places in self._held.values() if places]
        self._file.sent = min(first, default=self._read_to)
