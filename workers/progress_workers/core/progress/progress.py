"""The progress of an operation. Its `progress` object is always sent complete."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from progress_broker.errors import TooLarge
from progress_broker.model import payloads
from progress_broker.model.progress import one_line
from progress_broker.model.publish import Counts
from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.counter import Counter
from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.core.progress.measurement import Measurement
from progress_workers.core.progress.percent import known, roll_up, shown
from progress_workers.core.progress.rate import Rate, eta_ms
from progress_workers.core.progress.stage import MAX_NAME_CHARS, LogLine, Stage
from progress_workers.values import brief, fit, number, pairs, text, tree

MAX_BYTES = 16_384
"""The most JSON that one metric, or one custom field, may take."""
MAX_NAMES = 1024
"""How many metrics, and how many custom fields, are kept. Further names are ignored."""
MAX_UNIT_CHARS = 64
MAX_RESUMED_BYTES = 1 << 20
"""The largest `progress` object that is continued from another worker, whatever limit that worker had."""
MAX_STAGES = 64
"""How many stages of an operation are shown. Further stages can be entered and counted with, but are not shown."""

COUNTED = ("current", "total", "percent", "rate", "eta_ms")
"""What a progress begins with. If several processes count, the script `publish` replaces the first three."""
_COMPUTED = ("current", "total", "unit", "percent", "message", "rate", "eta_ms", "stages", "metrics")


class Progress:
    """The state of one operation.

    Its percentage never goes down, even if its count does. There are two exceptions. When there is more to do than was
    known before (a larger total, another stage), it is the share of all of it; and `measure` sets it as it is.
    """

    def __init__(self, dirty_flag: DirtyFlag, clock: Clock, *, total: float | None, unit: str | None) -> None:
        self.gauge = Counter(dirty_flag, total, clock.monotonic)
        self._dirty_flag, self._clock = dirty_flag, clock
        self._unit = None if unit is None else text(unit, MAX_UNIT_CHARS)
        self._message: str | None = None
        self._metrics: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._stages: dict[str, Stage] = {}
        self._inherited: dict[str, dict[str, Any]] = {}
        self._given_percent: float | None = None
        self._highest = self._floor = 0.0
        self._whole: _Whole | None = None
        self._joins = self._says_changes = self._has_company = False
        self._changed: set[str] = set()
        """The names of members and metrics that were set since the last description."""
        self._increments: dict[str, float] = {}
        self._sent = self._described = _Count()
        self._others = _Count()
        self._rate, self._pace = Rate(), Rate()

    def resume(
        self,
        progress: Mapping[str, Any],
        counts: Counts | None = None,
        *,
        joins: bool = False,
        percent_only: bool = False,
    ) -> None:
        """Continue from an earlier `progress` object, perhaps of another process in another language.

        If several processes count, `counts` says what they have counted. With `joins`, this one is another of them.
        What was reported here meanwhile is newer, and stays.
        """
        try:
            progress = tree(progress, MAX_RESUMED_BYTES).value
        except TooLarge:
            return
        before = min(100.0, known(progress.get("percent")) or 0.0)
        self._pace = Rate(before)
        self._has_company = counts is not None
        counts = counts or Counts(known(progress.get("current")), known(progress.get("total")), 0, 0)
        if percent_only:
            self._floor = before
            self._others = _Count(counts.joined, counts.joined_total)
            return
        self._highest = max(self._highest, before)
        if joins:
            if not self._joins:
                self.join()
            if counts.own_total is not None:
                self.gauge.set(total=counts.own_total)
                self._sent = _Count(self._sent.current, counts.own_total)
            # The script joins what several processes say only where it can tell the members apart.
            self._says_changes = tuple(progress)[: len(COUNTED)] in ((), COUNTED)
        else:
            self.gauge.continue_from(counts.own or 0, counts.own_total)
            self._sent = self._counted()
        self._note(counts)
        self._rate = Rate(counts.current)
        if self._says_changes:
            return
        unit, message = progress.get("unit"), progress.get("message")
        self._unit = self._unit or (text(unit, MAX_UNIT_CHARS) if unit else None)
        self._message = self._message or (None if message is None else text(message))
        metrics, stages = progress.get("metrics"), progress.get("stages")
        self._metrics = (dict(metrics) if isinstance(metrics, dict) else {}) | self._metrics
        self._extra = {name: value for name, value in progress.items() if name not in _COMPUTED} | self._extra
        if isinstance(stages, list) and not self._has_company:  # else the script has what the others have counted
            named = (stage for stage in stages if isinstance(stage, dict) and isinstance(stage.get("name"), str))
            self._inherited = {stage["name"]: stage for stage in named}
        if self.gauge.total is None and self._given_percent is None:
            self._given_percent = known(progress.get("percent"))
        self._whole = self._measure(list(self._inherited.values()))

    def join(self) -> None:
        """From now on count as one of several processes, and say only what changes: another one reports the rest."""
        self._joins, self._sent = True, self._counted()
        self._says_changes = True
        self._changed.clear()
        self._increments.clear()
        for stage in self._stages.values():
            stage.join()

    def take_count(self) -> tuple[float, float] | None:
        """Return what this process had counted when it was described, beyond the last call; None if it alone counts."""
        before, self._sent = self._sent, self._described
        for stage in self._stages.values():
            stage.sent()
        return (self._sent.current - before.current, self._sent.total - before.total) if self._joins else None

    @property
    def done_by_all(self) -> float:
        """How much all processes had counted together, as of the last progress that was stored."""
        return self._sent.current + self._others.current

    def hear(self, counts: Counts) -> None:
        """Note what all processes have counted, as of the last progress that was sent."""
        self._has_company = True
        self._note(counts)

    def _note(self, counts: Counts) -> None:
        self._others = _Count(counts.current - self._sent.current, (counts.total or 0) - self._sent.total)

    def _counted(self) -> "_Count":
        return _Count(self.gauge.current, self.gauge.total or 0)

    def update(
        self,
        current: float | None,
        total: float | None,
        percent: float | None,
        message: str | None,
        metrics: Mapping[str, Any] | None,
        extra: Mapping[str, Any],
        *,
        unit: str | None = None,
    ) -> None:
        """Apply an update. A value that is None changes nothing; an invalid one causes a warning."""
        # Converted before the lock is taken, because the conversion may run users' code.
        reported = None if percent is None else self._percentage(percent)
        said = None if message is None else text(message)
        named = None if unit is None else text(unit, MAX_UNIT_CHARS)
        measured = {} if metrics is None else self._measured(metrics)
        added = self._added(extra) if extra else {}
        counts = self.gauge.checked(current, total)
        with self._dirty_flag.lock:
            self.gauge.set(*counts)
            self._given_percent = self._given_percent if reported is None else reported
            self._message = self._message if said is None else said
            self._unit = self._unit if named is None else named
            self._changed |= {*measured, *added, *(("message",) if said is not None else ())}
            self._changed |= {"unit"} if named is not None else set()
            self._keep(self._metrics, measured)
            self._keep(self._extra, added)
        self._dirty_flag.mark_dirty()

    def increment(self, name: object, by: object) -> None:
        """Add to a metric that counts; one that is not a number starts at 0."""
        added = number(by)
        if added is None:
            self._dirty_flag.warn("increment", f"the increment {brief(by)} was ignored; expected a finite number")
            return
        name = text(name, MAX_NAME_CHARS)
        with self._dirty_flag.lock:
            before = number(self._metrics.get(name))
            if self._says_changes:  # the script adds it to what all processes have
                self._keep(self._metrics, {name: (before or 0) + added})
                self._increments[name] = self._increments.get(name, 0) + added
                self._changed.discard(name)
                self._dirty_flag.mark_dirty()
            else:
                self.update(None, None, None, None, {name: (before or 0) + added}, {})

    def measure(self, measured: Measurement) -> None:
        """Replace the count, the total and the percentage by those of a bar that somebody else shows.

        If it is the bar of another part of the work, the percentage begins anew.
        """
        with self._dirty_flag.lock:
            if measured.begins:
                self._highest = 0.0
            self.gauge.set(measured.current or 0, -1 if measured.total is None else measured.total)
            self._given_percent = measured.percent
            if measured.unit is not None:
                self._unit = text(measured.unit, MAX_UNIT_CHARS) or None
            if measured.message is not None:
                self._message = text(measured.message)
                self._changed.add("message")
            if measured.counts_anew:
                self._rate = Rate(self.gauge.current - self.gauge.skipped)
                self._pace = Rate(measured.percent or 0.0)
        self._dirty_flag.mark_dirty()

    def stage(self, name: str, weight: float | None, total: float | None, log: LogLine) -> Stage:
        """Return the stage of this name; the first call creates it."""
        name = text(name, MAX_NAME_CHARS)
        with self._dirty_flag.lock:
            stage = self._stages.get(name)
            if stage is None:
                stage = Stage(name, self._dirty_flag, self._clock, log)
                if len(self._stages) < MAX_STAGES:
                    self._stages[name] = stage
        if weight is not None:
            stage.weigh(weight)
        stage.gauge.set(total=total)
        self._dirty_flag.mark_dirty()
        return stage

    @property
    def running_stage(self) -> str | None:
        """The name of the running stage, if exactly one stage runs."""
        running = [stage.name for stage in self._stages.values() if stage.status == "running"]
        return running[0] if len(running) == 1 else None

    def describe(self, now: float) -> dict[str, Any]:
        """Return the `progress` object as of `now`, a monotonic time in seconds. The caller holds the lock."""
        current, total = self.gauge.current, self.gauge.total
        self._described = self._counted()
        done = max(0, current + self._others.current)
        stages = self._inherited | {name: stage.describe(now) for name, stage in self._stages.items()}
        percent = self._percent(list(stages.values()))
        rate = self._rate.sample(now, done - self.gauge.skipped, self.gauge.began)
        described: dict[str, Any] = {
            # Work that counts only in its stages has no count of its own.
            "current": current if current or total is not None or not stages else None,
            "total": total,
            "percent": percent,
            "rate": None if rate is None else round(rate, 3),
            "eta_ms": self._eta_ms(now, rate, percent),
        }
        changed, self._changed = self._changed, set()
        told = {"unit": self._unit, "message": self._message}
        metrics, extra = dict(self._metrics), self._extra
        if self._says_changes or (
            self._has_company and not self._joins
        ):  # others say the rest, and the script joins it
            told = {name: value for name, value in told.items() if name in changed}
            metrics = {name: value for name, value in metrics.items() if name in changed}
            extra = {name: value for name, value in extra.items() if name in changed}
        if self._says_changes:
            stages = {name: stage.describe_added(now) for name, stage in self._stages.items() if stage.has_changed}
        described |= told
        if stages:
            described["stages"] = list(stages.values())
        if metrics:
            described["metrics"] = metrics
        if self._increments:
            described["increments"], self._increments = self._increments, {}
        return described | extra

    def __str__(self) -> str:
        """Return what is known now, for people; an empty text if nothing is."""
        with self._dirty_flag.lock:
            now = self._clock.monotonic()
            stages = self._inherited | {name: stage.describe(now) for name, stage in self._stages.items()}
            percent = self._current_percent(list(stages.values()))
            percent = None if percent is None else shown(max(percent, self._floor, self._highest))
            done = max(0, self.gauge.current + self._others.current)
            total = (self.gauge.total or 0) + self._others.total
            return one_line(percent, done if done or total else None, total or None, self._unit)

    def _percentage(self, percent: object) -> float | None:
        found = number(percent)
        if found is None:
            self._dirty_flag.warn("percent", f"the percent {brief(percent)} was ignored; expected a finite number")
            return None
        return min(100.0, max(0.0, float(found)))

    def _measured(self, metrics: object) -> dict[str, Any]:
        """Return metrics as JSON, without those that are too large."""
        given = pairs(metrics, MAX_NAMES)
        if given is None:
            self._dirty_flag.warn("metrics", f"the metrics {brief(metrics)} were ignored; expected a mapping")
            return {}
        measured: dict[str, Any] = {}
        for name, value in given:
            try:
                reported = tree({name: value}, MAX_BYTES)
            except TooLarge as error:
                self._dirty_flag.warn("metrics", f"the metric {brief(name)} was ignored, because {error}")
                continue
            measured |= reported.value
            if reported.replaced:
                self._dirty_flag.warn(
                    "metrics",
                    f"the metric {brief(name)} is not JSON; these parts are shown as text:"
                    f" {', '.join(reported.replaced)}",
                )
        return measured

    def _added(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Return custom fields as JSON; fields that clients know must have the expected shape."""
        added: dict[str, Any] = {}
        for name, value in extra.items():
            try:
                kept, rejected = fit(payloads.Progress, tree({name: value}, MAX_BYTES).value)
            except TooLarge as error:
                self._dirty_flag.warn(name, f"the field {name} was ignored, because {error}")
                continue
            if rejected:
                said = (
                    f"the value {brief(value)} of {', '.join(rejected)} was ignored; docs/protocol.md has the"
                    " valid values"
                )
                self._dirty_flag.warn(name, said)
            added |= kept
        return added

    def _keep(self, known: dict[str, Any], reported: dict[str, Any]) -> None:
        for name, value in reported.items():
            if name in known or len(known) < MAX_NAMES:
                known[name] = value
            else:
                self._dirty_flag.warn(
                    "names",
                    f"the name {brief(name)} was ignored, because an operation can have at most {MAX_NAMES:,} names",
                )

    def _percent(self, stages: list[dict[str, Any]]) -> float | None:
        """Use the operation's own count. Without a total, use the reported percentage, or else the sum of stages."""
        percent = self._current_percent(stages)
        if percent is None:
            return None
        before, self._whole = self._whole, self._measure(stages)
        self._highest = percent if self._whole.exceeds(before) else max(self._highest, percent)
        return shown(max(self._floor, self._highest))

    def _current_percent(self, stages: list[dict[str, Any]]) -> float | None:
        percent = self.gauge.percent
        if percent is None and self._given_percent is not None:
            percent = self._given_percent
        if percent is None and self._stages:
            percent = roll_up(stages)
        return percent

    def _measure(self, stages: list[dict[str, Any]]) -> "_Whole":
        if self.gauge.total is not None:
            return _Whole(total=self.gauge.total)
        return _Whole(
            weight=sum(known(stage.get("weight")) or 1 for stage in stages),
            stage_total=sum(known(stage.get("total")) or 0 for stage in stages),
        )

    def _eta_ms(self, now: float, rate: float | None, percent: float | None) -> int | None:
        """Use the count if there is a total; otherwise use the growth of the percentage."""
        total = (self.gauge.total or 0) + self._others.total
        if self.gauge.total is not None or total > 0:
            return eta_ms(max(0.0, float(total) - float(self.gauge.current) - float(self._others.current)), rate)
        if percent is None:
            return None
        return eta_ms(100.0 - percent, self._pace.sample(now, percent))


class _Count(NamedTuple):
    """A count, and the total that belongs to it."""

    current: float = 0
    total: float = 0


class _Whole(NamedTuple):
    """How much there is to do, as far as it is known; 0: unknown."""

    total: float = 0
    weight: float = 0
    stage_total: float = 0

    def exceeds(self, before: "_Whole | None") -> bool:
        """Return whether more is to be done than was known before. To learn for the first time how much is no more."""
        return before is not None and any(now > then > 0 for now, then in zip(self, before, strict=True))
