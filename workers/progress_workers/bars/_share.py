"""A bar's contribution to an operation: its count is added to the operation's, and its description is the message."""

import weakref
from collections.abc import Callable
from threading import RLock

from progress_workers.base import BaseOperation
from progress_workers.core.progress.stage import Stage
from progress_workers.values import number

_lock = RLock()
"""Nothing is reported while it is held: the garbage collector closes bars, and may run while any other lock is held."""


class BarContribution:
    """One bar's contribution to an operation, or to its running stage.

    With nested bars, the outermost one counts. Bars that follow one another add up, as with `Operation.track`, and so
    do parallel ones. All but the outermost one appear in the message with their percentages.

    `refresh` makes the bar report its count now.
    """

    def __init__(self, operation: BaseOperation, refresh: Callable[[], None] = lambda: None) -> None:
        self.stage = running_stage(operation)
        self.is_open = True
        self.finished = False
        self.refresh = refresh
        self._operation = operation
        self._counts = self.stage or operation
        self._n: float = 0
        self._total: float | None = None
        self._unit = self._label = ""
        with _lock:
            self._group = _group_of(self._counts)
            self.counted = not self._group.open()
            self._told = False
            self._group.shares.append(weakref.ref(self))

    def report(self, n: float, total: float | None, label: str = "", unit: str = "", *, work: bool = True) -> None:
        """Report that `n` of `total` are done; `total` None: unknown. With `work=False`, the units took no work."""
        done, of = number(n), number(total)
        if not self.is_open or done is None:
            return
        n, total = done, of
        with _lock:
            by, self._n, self._total, self._label = n - self._n, n, total, label
            unit, self._unit = ("" if unit == self._unit else unit), unit
            finished, self.finished = self.finished, total is not None and n >= total > 0
            if not self._told:
                self._told = True
                self.counted = self.counted or self._group.takes(self)
            if not self.counted and (by < 0 or (self.finished and not finished)):
                self._group.parts += 1
            joined = self._group.parallel_to(self, by) if self.counted and work and by > 0 else []
            said, expected = self._group.message(), self._group.total() if self.counted else None
        if self.counted:
            if by:
                (self._counts.advance if work else self._counts.skip)(by)
            for n in joined:
                self._counts.skip(n)
            if expected is not None:
                self._counts.update(total=expected)
            if unit:
                self._counts.update(unit=unit)
        if said is not None:
            self._operation.update(message=said)

    def close(self) -> None:
        """Note that the bar is closed. Its count remains."""
        with _lock:
            if not self.is_open:
                return
            self.is_open = False
            if not self.counted and not self.finished:
                self._group.parts += 1
            self._group.settle(self, (self._n if self._total is None else self._total) if self.counted else 0)
            said = self._group.message()
        if said is not None:
            self._operation.update(message=said)

    def withdraw(self) -> None:
        """Take back the bar's count: from now on it is reported in another way."""
        self.report(0, None)
        self.close()

    def describe(self, inside: bool) -> str:
        """Return the bar's text for the operation's message; for an inner bar, with its percentage."""
        share = f" {min(100, int(100 * self._n / self._total))} %" if inside and self._total else ""
        return f"{self._label}{share}" if self._label else ""


class NoContribution:
    """The contribution of a bar that does not report, such as a copy of a reporting bar."""

    is_open = False

    def report(self, *_: object, **__: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class BarGroup:
    """The bars that count for the same operation or stage, one after another, nested or parallel.

    An inner bar is a part of one step of the outer bar. So an outer bar that steps on while the others are unfinished,
    and none of them has finished since, shows that they are parallel to it. Until then they are taken for inner bars.
    """

    def __init__(self, has_total: bool) -> None:
        self.shares: list[weakref.ref[BarContribution]] = []
        self.told_total: float | None = None
        self.parts: float = 0
        """How many inner bars have finished, or begun again, less the steps of the outer bar."""
        self._parallel = False
        self._has_total = has_total  # then the user set it, and bars must not change it
        self._settled: float = 0
        self._message = ""

    def open(self) -> list[BarContribution]:
        """Return the open bars, the outermost first. A bar that was garbage-collected counts as closed."""
        return [share for ref in self.shares if (share := ref()) is not None and share.is_open]

    def settle(self, share: BarContribution, total: float) -> None:
        """Note that a bar is closed, and the total that it reached."""
        self._settled += total
        self.shares = [ref for ref in self.shares if ref() not in (None, share)]
        if not self.open():
            self._parallel, self.parts = False, 0

    def takes(self, share: BarContribution) -> bool:
        """Return whether a new bar is parallel to the others."""
        return self._parallel and any(each.counted and each._unit == share._unit for each in self.open())

    def parallel_to(self, share: BarContribution, by: float) -> list[float]:
        """Return what the bars have done that turn out to be parallel to a bar, as it steps on."""
        others = [] if self._parallel else [each for each in self.open() if each is not share]
        for each in others:
            each.refresh()
        alike = [each for each in others if each._unit == share._unit and (each._total or each._n)]
        if self.parts > 0 or all(each.finished for each in alike):
            self.parts = max(0, self.parts - by)
            return []
        self._parallel = True
        for each in alike:
            each.counted = True
        return [each._n for each in alike]

    def total(self) -> float | None:
        """Return the total of all bars so far; negative if it is now unknown; None if it has not changed."""
        totals = [each._total for each in self.open() if each.counted]
        known = [total for total in totals if total is not None]
        total = None if self._has_total or len(known) < len(totals) else self._settled + sum(known)
        if total == self.told_total:
            return None
        self.told_total = total
        return -1 if total is None else total

    def message(self) -> str | None:
        """Return the message of the bars; None if it has not changed."""
        labels = (share.describe(inside=self._parallel or depth > 0) for depth, share in enumerate(self.open()))
        message = (", " if self._parallel else " > ").join(filter(None, labels))
        if not message or message == self._message:
            return None
        self._message = message
        return message


_groups: weakref.WeakKeyDictionary[BaseOperation | Stage, BarGroup] = weakref.WeakKeyDictionary()


def running_stage(operation: BaseOperation) -> Stage | None:
    """Return the running stage, if exactly one stage runs."""
    name = operation._reporter.progress.running_stage
    return None if name is None else operation.stage(name)


def _group_of(counts: BaseOperation | Stage) -> BarGroup:
    group = _groups.get(counts)
    if group is None:
        gauge = counts.gauge if isinstance(counts, Stage) else counts._reporter.progress.gauge
        group = _groups[counts] = BarGroup(gauge.total is not None)
    return group
