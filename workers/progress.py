"""How far an operation is: the state behind its `progress` object, always told whole."""

from collections.abc import Mapping
from typing import Any

from broker.errors import Invalid
from workers.clock import Clock
from workers.gauge import Gauge, Pulse
from workers.payloads import cut
from workers.rate import Rate, eta_ms
from workers.stages import LogLine, Stage, number, roll_up, shown

MAX_STAGES = 64
"""Stages shown of an operation. One more can be entered and counted with, but is not shown."""

_COMPUTED = ("current", "total", "unit", "percent", "message", "rate", "eta_ms", "stages", "metrics")


class Progress:
    """The state of one operation. Its percentage never goes down, whatever its count does."""

    def __init__(self, pulse: Pulse, clock: Clock, *, total: float | None, unit: str | None) -> None:
        self.gauge = Gauge(pulse, total)
        self._pulse, self._clock = pulse, clock
        self._unit = None if unit is None else str(unit)
        self._message: str | None = None
        self._metrics: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._stages: dict[str, Stage] = {}
        self._inherited: dict[str, dict[str, Any]] = {}
        self._given_percent: float | None = None
        self._highest = 0.0
        self._rate, self._pace = Rate(clock.monotonic()), Rate(clock.monotonic())

    def resume(self, progress: Mapping[str, Any], *, percent_only: bool = False) -> None:
        """Go on from a `progress` object told before, perhaps by another process in another language."""
        self._highest = max(self._highest, min(100.0, number(progress.get("percent")) or 0.0))
        self._pace = Rate(self._clock.monotonic(), self._highest)
        if percent_only:
            return
        self.gauge.set(number(progress.get("current")), number(progress.get("total")))
        self._rate = Rate(self._clock.monotonic(), self.gauge.current)
        self._unit = progress.get("unit") or self._unit
        self._message = progress.get("message")
        metrics, stages = progress.get("metrics"), progress.get("stages")
        self._metrics = dict(metrics) if isinstance(metrics, dict) else {}
        self._extra = {name: value for name, value in progress.items() if name not in _COMPUTED}
        if isinstance(stages, list):
            named = (stage for stage in stages if isinstance(stage, dict) and isinstance(stage.get("name"), str))
            self._inherited = {stage["name"]: stage for stage in named}
        if self.gauge.total is None:
            self._given_percent = number(progress.get("percent"))

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
        """Take in what the operation was told; None leaves a part as it is."""
        for name, value in (("current", current), ("total", total), ("percent", percent)):
            if value is not None and not hasattr(value, "__float__"):
                raise Invalid(f"{name} is a number, not {value!r}", field=name)
        with self._pulse.lock:
            self.gauge.set(current, total)
            if percent is not None:
                self._given_percent = min(100.0, max(0.0, float(percent)))
            self._unit = self._unit if unit is None else str(unit)
            if message is not None:
                self._message = str(message)  # here, where a failure is the caller's
            if metrics:
                self._metrics.update(metrics)
            if extra:
                self._extra.update(extra)
        self._pulse.touch()

    def stage(self, name: str, weight: float | None, total: float | None, log: LogLine) -> Stage:
        """Return the stage of this name, made at its first mention."""
        with self._pulse.lock:
            stage = self._stages.get(name) or Stage(name, self._pulse, self._clock, log)
            if weight is not None:
                stage.weigh(weight)
            stage.gauge.set(total=total)
            if len(self._stages) < MAX_STAGES:
                self._stages.setdefault(name, stage)
        self._pulse.touch()
        return stage

    @property
    def running_stage(self) -> str | None:
        """The stage that runs, if it is only one."""
        running = [stage.name for stage in self._stages.values() if stage.status == "running"]
        return running[0] if len(running) == 1 else None

    def describe(self, now: float) -> dict[str, Any]:
        """Return the `progress` object as of `now`, a monotonic time in seconds. The caller holds the lock."""
        current, total = self.gauge.current, self.gauge.total
        stages = self._inherited | {name: stage.describe(now) for name, stage in self._stages.items()}
        percent = self._percent(list(stages.values()))
        rate = self._rate.sample(now, current - self.gauge.skipped)
        described: dict[str, Any] = {
            # Work that counts in its stages alone has no count of its own.
            "current": current if current or total is not None or not stages else None,
            "total": total,
            "unit": None if self._unit is None else cut(str(self._unit), 64),
            "percent": percent,
            "message": None if self._message is None else cut(str(self._message)),
            "rate": None if rate is None else round(rate, 3),
            "eta_ms": self._eta_ms(now, rate, percent),
        }
        if stages:
            described["stages"] = list(stages.values())
        if self._metrics:
            described["metrics"] = dict(self._metrics)
        return described | self._extra

    def _percent(self, stages: list[dict[str, Any]]) -> float | None:
        """The operation's own count decides; without a total its stages do, and without those what it was told."""
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
        """By the count, where there is a total; else by how fast the percentage grows."""
        total = self.gauge.total
        if total is not None:
            return eta_ms(max(0.0, float(total) - float(self.gauge.current)), rate)
        if percent is None:
            return None
        return eta_ms(100.0 - percent, self._pace.sample(now, percent))
