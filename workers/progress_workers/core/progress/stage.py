"""The parts of an operation, and what they add up to."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from progress_broker.errors import TooLarge
from progress_broker.model import payloads
from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.counter import Gauge, T
from progress_workers.core.progress.dirty import Pulse
from progress_workers.core.progress.percent import shown
from progress_workers.errors import exited_well, is_cancellation
from progress_workers.values import brief, fit, number, tree

MAX_NAME_CHARS = 256
"""Longest name of a stage; the rest is cut."""
MAX_EXTRA_BYTES = 4096
"""Most JSON that the fields of its own of one stage may take."""


class LogLine(Protocol):
    """What takes a line of the operation's log."""

    def __call__(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Add a line."""


class Stage:
    """A named part of an operation, with a count of its own: `with op.stage("parse", total=10) as stage: …`.

    It may be entered again, also by many threads at a time: it runs as long as one of them is in it, and ends as the
    worst of them did: `failed`, `skipped` (when the work was cancelled) or `succeeded`.
    """

    def __init__(self, name: str, pulse: Pulse, clock: Clock, log: LogLine) -> None:
        self.name = name
        self.weight: float = 1
        self.status = "pending"
        self.gauge = Gauge(pulse)
        self._pulse, self._clock, self._log = pulse, clock, log
        self._inside = 0
        self._worst = "succeeded"
        self._started_at: str | None = None
        self._since = 0.0
        self._spent_s = 0.0
        self._extra: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with self._pulse.lock:
            if self._inside == 0:
                self.status, self._worst, self._since = "running", "succeeded", self._clock.monotonic()
                if self._started_at is None:
                    self._started_at = _rfc3339(self._clock.wall())
            self._inside += 1
        self._pulse.touch()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._pulse.lock:
            if error is not None and self._worst != "failed" and not exited_well(error):
                self._worst = "skipped" if is_cancellation(error) else "failed"
            self._inside -= 1
            if self._inside == 0:
                self.status = self._worst
                self._spent_s += self._clock.monotonic() - self._since
        self._pulse.touch()

    def advance(self, by: float = 1) -> None:
        """Count `by` more of this stage as done."""
        self.gauge.advance(by)

    def skip(self, by: float = 1) -> None:
        """Count `by` more of this stage as done without work."""
        self.gauge.skip(by)

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Return the items one by one, counting them; their number, where known, is this stage's total."""
        self.gauge.expect(items)
        return self.gauge.track(items)

    def update(
        self,
        *,
        current: float | None = None,
        total: float | None = None,
        in_flight: int | None = None,
        **extra: Any,
    ) -> None:
        """Say how far this stage is, and how many items are in work at once. `extra` fields are shown as they are."""
        kept = self._kept(extra if in_flight is None else {"in_flight": in_flight, **extra})
        counts = self.gauge.checked(current, total)
        with self._pulse.lock:
            self.gauge.set(*counts)
            self._extra |= kept
        self._pulse.touch()

    def log(self, message: str, level: str = "info") -> None:
        """Add a line to the operation's log, told as this stage's."""
        self._log(message, level, self.name)

    def weigh(self, weight: float) -> None:
        """Say how much of the operation this stage is, compared with the others."""
        found = number(weight)
        if found is not None and found > 0:
            self.weight = found
        else:
            self._pulse.complain("weight", f"weight: {brief(weight)} was ignored; a finite number above 0 is needed")

    def _kept(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Return what can be kept of fields: those that clients know are held to what they expect."""
        if not extra:
            return extra
        try:
            kept, refused = fit(payloads.Stage, {**tree(extra, MAX_EXTRA_BYTES).value, "name": self.name})
        except TooLarge as error:
            self._pulse.complain("stage", f"fields of stage {self.name} were ignored: {error}")
            return {}
        if refused:
            self._pulse.complain("stage", f"fields of stage {self.name} were ignored: {', '.join(refused)}")
        kept.pop("name", None)
        return kept

    @property
    def percent(self) -> float | None:
        """How much of it is done, 0 to 100: by its count, or else by having ended."""
        percent = self.gauge.percent
        if self.status == "succeeded" and not self.gauge.current:
            return 100.0
        return percent

    def describe(self, now: float) -> dict[str, Any]:
        """Return the stage as the `progress` object shows it."""
        spent_s = self._spent_s + (now - self._since if self._inside else 0.0)
        counts = self.gauge.total is not None or self.gauge.current
        return {
            "name": self.name,
            "status": self.status,
            "current": self.gauge.current if counts else None,
            "total": self.gauge.total,
            "percent": None if self.percent is None else shown(self.percent),
            "weight": self.weight,
            "started_at": self._started_at,
            "duration_ms": round(max(0.0, spent_s) * 1000) if self._started_at else None,
        } | self._extra


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
