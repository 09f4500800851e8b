"""Several bars at a time: which of them decides, or how far they are together."""

import re
from collections.abc import Sequence

from progress_workers.processes.bars.readings import Reading, plain
from progress_workers.processes.terminal import MAX_ROWS

MAX_BARS = 1000
"""How many bars are added up. Beyond that the oldest ones that have ended are forgotten."""
MOVES = 2
"""So often two bars have to move, while no other bar ends, to be two parts of the work at the same time."""
_NAME = re.compile(r"[0-9a-f]*\d[0-9a-f]*")


class Bar:
    """A bar that a command shows."""

    __slots__ = ("begins_again", "blank", "final", "moves", "parallel", "reading", "stale", "turn", "turns")

    def __init__(self, reading: Reading, *, parallel: bool = False) -> None:
        self.reading = reading
        self.moves = 0
        """How often it has moved since a bar ended."""
        self.parallel = parallel
        """Whether it is known to stand for work that goes on at the same time as that of another bar."""
        self.begins_again = False
        """Whether it ran to its end more than once: then it is a part of another bar's work."""
        self.blank = False
        """Whether its row was erased. It may be written again."""
        self.final = False
        """Whether the command seems to have left its row. It may come back, unless it writes to rows below."""
        self.stale = False
        """Whether the same bar was written to another row since."""
        self.turn = self.turns = 0

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 100."""
        return self.reading.share or 0.0


class Rows:
    """The bars that stand below each other.

    Usually the first one that is not complete decides, because bars of parts stand below that of the whole. But bars of
    files that are loaded at the same time are added up. They are known by their labels, which differ only in a number;
    or both of two bars move, while no bar ends: the bar of a whole moves only when that of a part ends.
    """

    def __init__(self) -> None:
        self._bars: dict[int, Bar] = {}
        self._ended: dict[str | int, Reading] = {}
        self._shared: set[str] = set()
        self._whole: str | None = None
        self._last = -1
        self.are_together = False
        """Whether several bars were added up when the last one moved."""

    def take(self, row: int, reading: Reading | None, *, blank: bool = False, final: bool = False) -> None:
        """Note what a row shows now: a bar, text without one, or nothing. A `final` row may not be written again."""
        if row > self._last:
            self._go_below(row)
        bar = self._bars.get(row)
        if reading is None or reading.share is None:
            if bar is not None and blank:
                bar.blank = True
            elif bar is not None:
                self._end(row, _completed(bar.reading))
            return
        if bar is None or is_other(bar.reading, reading):
            self._begin(row, reading)
        else:
            self._move(bar, reading)
        self._bars[row].final = final

    def decides(self, row: int) -> bool:
        """Return whether what a row says is what people should read."""
        first = self._first()
        return first is None or first == row

    def together(self) -> Reading | None:
        """Return how far the bar is that decides, or all that are added up with it; None if there is none."""
        first = self._first()
        if first is None:
            return None
        decides = self._bars[first]
        parts = self._parts(decides)
        self.are_together = len(parts) > 1
        return add_up(parts) if self.are_together else decides.reading

    def _first(self) -> int | None:
        going_on = [row for row, bar in self._bars.items() if bar.share < 100 and not bar.blank and not bar.stale]
        for row in going_on:
            if self._whole is not None and self._bars[row].reading.label == self._whole:
                return row
        return min(going_on, default=None)

    def _parts(self, decides: Bar) -> list[Reading]:
        if self._whole is not None or decides.begins_again:
            return [decides.reading]
        live = [bar for bar in self._bars.values() if not bar.stale and not bar.begins_again]
        live = [bar for bar in live if are_alike(bar.reading, decides.reading)]
        shape = shape_of(decides.reading.label)
        alike = [bar for bar in live if shape and shape_of(bar.reading.label) == shape]
        if len(alike) < 2 and not decides.parallel:
            alike = [decides]
        elif decides.parallel:
            alike = [bar for bar in live if bar.parallel or bar in alike]
        ended = [reading for reading in self._ended.values() if are_alike(reading, decides.reading)]
        if not decides.parallel:
            ended = [reading for reading in ended if shape and shape_of(reading.label) == shape]
        return [bar.reading for bar in alike] + ended

    def _begin(self, row: int, reading: Reading) -> None:
        before = self._bars.get(row)
        if before is not None:
            self._end(row, before.reading)
        elif self._first() is None and self._bars.keys() | self._ended.keys():
            self._clear()  # all that was shown is complete: another part of the work begins
        label = reading.label
        if label and label not in self._shared:
            for bar in self._bars.values():  # bars move to other rows when one is finished
                bar.stale = bar.stale or (bar.reading.label == label and not is_other(bar.reading, reading))
        self._ended.pop(label, None)
        self._bars[row] = Bar(reading, parallel=before is not None and before.parallel)

    def _move(self, bar: Bar, reading: Reading) -> None:
        before, share = bar.share, reading.share or 0.0
        bar.reading, bar.blank = reading, False
        if bar.stale:  # several bars have this label
            self._shared.add(reading.label)
            for other in self._bars.values():
                other.stale = other.stale and other.reading.label != reading.label
        if share < before:
            if bar.parallel:
                self._keep(id(bar), bar.reading._replace(current=before))
            bar.begins_again = bar.begins_again or bool(reading.label)
            self._forget_moves()
        elif share > before:
            bar.moves += 1
            self._compare(bar)

    def _compare(self, moved: Bar) -> None:
        """Note which bars move at the same time."""
        others = [bar for bar in self._bars.values() if bar is not moved and not bar.stale and bar.share < 100]
        others = [bar for bar in others if are_alike(bar.reading, moved.reading)]
        together = [bar for bar in others if moved.moves >= MOVES and bar.moves >= MOVES]
        if moved.parallel or not together:
            return
        for bar in (moved, *together):
            bar.parallel = True
        everyone = [bar.reading for bar in (moved, *others)]
        for reading in everyone:
            rest = [other for other in everyone if other is not reading]
            total, current = sum(one.total or 0 for one in rest), sum(one.current or 0 for one in rest)
            if len(rest) > 1 and (reading.total or 0) > total and (reading.current or 0) >= 0.95 * current:
                self._whole = reading.label  # what all others together have done

    def _end(self, row: int, reading: Reading) -> None:
        bar = self._bars.pop(row)
        if not bar.stale and not bar.begins_again:
            self._keep(reading.label or id(bar), reading)
        self._forget_moves()

    def _go_below(self, row: int) -> None:
        """Forget bars that the command has left, now that it writes below all of them."""
        self._last = row
        for other, bar in list(self._bars.items()):
            if (bar.final and bar.share < 100) or other <= row - MAX_ROWS:
                del self._bars[other]

    def _keep(self, key: str | int, reading: Reading) -> None:
        self._ended[key] = reading
        if len(self._ended) > MAX_BARS:
            del self._ended[next(iter(self._ended))]

    def _forget_moves(self) -> None:
        for bar in self._bars.values():
            bar.moves = 0

    def _clear(self) -> None:
        self._bars.clear()
        self._ended.clear()
        self._shared.clear()
        self._whole, self.are_together = None, False


class Labels:
    """The bars of commands that write to the same row in turn, such as those that `xargs -P` runs.

    They are known by their labels, which come again and again. They are added up until all of them are complete.
    """

    def __init__(self) -> None:
        self._bars: dict[str, Bar] = {}
        self._turn = 0

    def take(self, reading: Reading) -> Reading:
        """Note the newest bar; return it, or how far all are together."""
        if not reading.label or reading.share is None:
            return reading
        self._turn += 1
        bar = self._bars.get(reading.label)
        if bar is None or is_other(bar.reading, reading) or reading.share < bar.share:
            if all(known.share >= 100 for known in self._bars.values()):
                self._bars.clear()
            parallel = any(known.parallel and are_alike(known.reading, reading) for known in self._bars.values())
            bar = self._bars[reading.label] = Bar(reading, parallel=parallel)
            if len(self._bars) > MAX_BARS:
                del self._bars[next(iter(self._bars))]
        else:
            self._return(bar, reading)
        bar.turn = self._turn
        together = [one.reading for one in self._bars.values() if one.parallel]
        return add_up(together) if bar.parallel and len(together) > 1 else reading

    def _return(self, bar: Bar, reading: Reading) -> None:
        """Note that a bar goes on after others were shown."""
        others = [one for one in self._bars.values() if one.turn > bar.turn and are_alike(one.reading, reading)]
        bar.turns += bool(others)
        bar.reading = reading
        if bar.turns >= MOVES:
            for one in (bar, *(other for other in others if other.turns)):
                one.parallel = True


def add_up(readings: Sequence[Reading]) -> Reading:
    """Return how far several bars are together: by their counts, or else as the mean of their percentages."""
    if all(reading.current is not None and reading.total is not None for reading in readings):
        current = sum(reading.current or 0 for reading in readings)
        total = sum(reading.total or 0 for reading in readings)
        return Reading(None, plain(current), plain(total), readings[0].unit, bars=len(readings))
    return Reading(sum(reading.share or 0.0 for reading in readings) / len(readings), bars=len(readings))


def are_alike(one: Reading, other: Reading) -> bool:
    """Return whether two bars measure the same: both the same unit, or both only percent."""
    return one.unit == other.unit and (one.total is None) == (other.total is None)


def is_other(before: Reading, now: Reading) -> bool:
    """Return whether the same row shows another bar now."""
    totals = before.total, now.total
    return before.label != now.label or (None not in totals and totals[0] != totals[1])


def shape_of(label: str) -> str:
    """Return a label without its numbers and hexadecimal names; empty if it has none."""
    shape = _NAME.sub("#", label)
    return shape if "#" in shape else ""


def _completed(reading: Reading) -> Reading:
    return reading._replace(percent=None if reading.percent is None else 100, current=reading.total)
