"""The progress of an operation. Its `progress` object is always sent complete."""

from collections.abc import Mapping
from typing import Any

from progress_broker.errors import TooLarge
from progress_broker.model import payloads
from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.counter import Counter
from progress_workers.core.progress.dirty import DirtyFlag
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

_COMPUTED = ("current", "total", "unit", "percent", "message", "rate", "eta_ms", "stages", "metrics")


class Progress:
    """The state of one operation. Its percentage never goes down, even if its count does."""

    def __init__(self, dirty_flag: DirtyFlag, clock: Clock, *, total: float | None, unit: str | None) -> None:
        self.gauge = Counter(dirty_flag, total)
        self._dirty_flag, self._clock = dirty_flag, clock
        self._unit = None if unit is None else text(unit, MAX_UNIT_CHARS)
        self._message: str | None = None
        self._metrics: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._stages: dict[str, Stage] = {}
        self._inherited: dict[str, dict[str, Any]] = {}
        self._given_percent: float | None = None
        self._highest = 0.0
        self._rate, self._pace = Rate(clock.monotonic()), Rate(clock.monotonic())

    def resume(self, progress: Mapping[str, Any], *, percent_only: bool = False) -> None:
        """Continue from an earlier `progress` object, perhaps of another process in another language."""
        try:
            progress = tree(progress, MAX_RESUMED_BYTES).value
        except TooLarge:
            return
        self._highest = max(self._highest, min(100.0, known(progress.get("percent")) or 0.0))
        self._pace = Rate(self._clock.monotonic(), self._highest)
        if percent_only:
            return
        self.gauge.set(known(progress.get("current")), known(progress.get("total")))
        self._rate = Rate(self._clock.monotonic(), self.gauge.current)
        unit, message = progress.get("unit"), progress.get("message")
        self._unit = text(unit, MAX_UNIT_CHARS) if unit else self._unit
        self._message = None if message is None else text(message)
        metrics, stages = progress.get("metrics"), progress.get("stages")
        self._metrics = dict(metrics) if isinstance(metrics, dict) else {}
        self._extra = {name: value for name, value in progress.items() if name not in _COMPUTED}
        if isinstance(stages, list):
            named = (stage for stage in stages if isinstance(stage, dict) and isinstance(stage.get("name"), str))
            self._inherited = {stage["name"]: stage for stage in named}
        if self.gauge.total is None:
            self._given_percent = known(progress.get("percent"))

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
            self._keep(self._metrics, measured)
            self._keep(self._extra, added)
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
        stages = self._inherited | {name: stage.describe(now) for name, stage in self._stages.items()}
        percent = self._percent(list(stages.values()))
        rate = self._rate.sample(now, current - self.gauge.skipped)
        described: dict[str, Any] = {
            # Work that counts only in its stages has no count of its own.
            "current": current if current or total is not None or not stages else None,
            "total": total,
            "unit": self._unit,
            "percent": percent,
            "message": self._message,
            "rate": None if rate is None else round(rate, 3),
            "eta_ms": self._eta_ms(now, rate, percent),
        }
        if stages:
            described["stages"] = list(stages.values())
        if self._metrics:
            described["metrics"] = dict(self._metrics)
        return described | self._extra

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
        percent = self.gauge.percent
        if percent is None and self._given_percent is not None:
            percent = self._given_percent
        if percent is None and self._stages:
            percent = roll_up(stages)
        if percent is None:
            return None
        self._highest = max(self._highest, percent)
        return shown(self._highest)

    def _eta_ms(self, now: float, rate: float | None, percent: float | None) -> int | None:
        """Use the count if there is a total; otherwise use the growth of the percentage."""
        total = self.gauge.total
        if total is not None:
            return eta_ms(max(0.0, float(total) - float(self.gauge.current)), rate)
        if percent is None:
            return None
        return eta_ms(100.0 - percent, self._pace.sample(now, percent))
