"""The parts of a command's work, whose bars follow one another: which reading moves the operation, and how far."""

from progress_workers.core.progress.measurement import Measurement
from progress_workers.processes.bars.readings import Reading

MAX_LOWER = 3
"""After so many readings in a row that are lower than what is shown, the bar follows them down."""


class Parts:
    """What the newest readings say about the work.

    Within a part the bar only rises. Another label or total is another part, and so is a bar that begins again. That a
    part is complete is shown when the command has succeeded: until then there may be more to do.
    """

    def __init__(self) -> None:
        self._newest: Reading | None = None
        self._shown = 0.0
        """The share that the part has reached, 0 to 100."""
        self._lower = 0
        self._is_full = False
        self._distrusts_counts = False
        self._held: Measurement | None = None
        self._had_unit = False

    def take(self, reading: Reading) -> Measurement | None:
        """Return how the operation changes by a reading; None if it does not."""
        before = self._newest
        if before is not None and reading.label != before.label:
            self._distrusts_counts = False
        reading = self._trusted(reading)
        share = reading.share
        if share is None:
            return None
        self._newest = reading
        begins = before is not None and self._begins(before, reading, share)
        if not begins and share < self._shown:
            return None
        self._shown, self._is_full, self._lower = share, share >= 100, 0
        anew = begins and before is not None and (before.label, before.unit) != (reading.label, reading.unit)
        measured = self._measured(reading, begins=begins, anew=anew)
        self._held = measured if self._is_full else None
        return None if self._is_full else measured

    def complete(self) -> Measurement | None:
        """Return what is left to show, now that the command has succeeded.

        A count is shown as the command showed it last, unless it is that of several bars. A percentage is 100, also if
        the command did not show that.
        """
        held, self._held = self._held, None
        if held is None and self._newest is not None and self._newest.bars > 1 and self._newest.total is not None:
            held = Measurement(self._newest.total, self._newest.total)
        if held is None and self._newest is not None and self._newest.total is None and self._shown < 100:
            self._shown = 100
            held = Measurement(percent=100)
        return held

    def _trusted(self, reading: Reading) -> Reading:
        """Return the reading without its count, if a count of this part said something else than its percentage."""
        self._distrusts_counts = self._distrusts_counts or reading.disputed
        if reading.percent is None or not self._distrusts_counts:
            return reading
        return reading._replace(current=None, total=None, unit=None)

    def _begins(self, before: Reading, reading: Reading, share: float) -> bool:
        if (reading.label, reading.bars) != (before.label, before.bars) or _differ(reading.total, before.total):
            return True
        if share >= self._shown:
            return False
        self._lower += 1
        return self._is_full or share < self._shown / 2 or self._lower >= MAX_LOWER

    def _measured(self, reading: Reading, *, begins: bool, anew: bool) -> Measurement:
        unit = reading.unit or ("" if self._had_unit else None)
        self._had_unit = bool(unit)
        counted = reading.current is not None and reading.total is not None
        current, total = (reading.current, reading.total) if counted else (None, None)
        return Measurement(current, total, None if counted else reading.share, unit, begins, anew)


def _differ(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one != other
