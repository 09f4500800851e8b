"""A stage: a named part of an operation with its own count."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from progress_broker.errors import TooLarge
from progress_broker.model import payloads
from progress_broker.model.progress import one_line
from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.counter import Counter, T
from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.core.progress.percent import shown
from progress_workers.errors import exited_well, is_cancellation
from progress_workers.values import brief, fit, number, tree

MAX_NAME_CHARS = 256
"""The longest name of a stage; a longer one is cut."""
MAX_EXTRA_BYTES = 4096
"""The most JSON that the custom fields of one stage may take."""


class LogLine(Protocol):
    """Adds a line to the operation's log."""

    def __call__(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Add a line."""


class Stage:
    """A named part of an operation with its own count: `with op.stage("parse", total=10) as stage: …`.

    It may be entered again, also by many threads at a time. It runs as long as at least one of them is inside. Then it
    has the worst status of them all: `failed`, `skipped` (when the work was cancelled) or `succeeded`.
    """

    def __init__(self, name: str, dirty_flag: DirtyFlag, clock: Clock, log: LogLine) -> None:
        self.name = name
        self.weight: float = 1
        self.status = "pending"
        self.gauge = Counter(dirty_flag)
        self._dirty_flag, self._clock, self._log = dirty_flag, clock, log
        self._inside = 0
        self._worst = "succeeded"
        self._started_at: str | None = None
        self._since = 0.0
        self._spent_s = 0.0
        self._extra: dict[str, Any] = {}
        self._sent = self._described = _Told()

    def __repr__(self) -> str:
        """Return one line: the name, the status and the progress."""
        counts = self.gauge.total is not None or self.gauge.current
        progress = one_line(self.percent, self.gauge.current if counts else None, self.gauge.total, None)
        return f"<Stage {self.name}: {self.status}{', ' if progress else ''}{progress}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            f"stage {self.name!r} can't be pickled: pass the operation's id and the stage's name instead, and use"
            " Operation.attach(id, end_on_exit=False).stage(name) in the other process"
        )

    def __enter__(self) -> Self:
        with self._dirty_flag.lock:
            if self._inside == 0:
                self.status, self._worst, self._since = "running", "succeeded", self._clock.monotonic()
                if self._started_at is None:
                    self._started_at = _rfc3339(self._clock.wall())
            self._inside += 1
        self._dirty_flag.mark_dirty()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._dirty_flag.lock:
            if error is not None and self._worst != "failed" and not exited_well(error):
                self._worst = "skipped" if is_cancellation(error) else "failed"
            self._inside -= 1
            if self._inside == 0:
                self.status = self._worst
                self._spent_s += self._clock.monotonic() - self._since
        self._dirty_flag.mark_dirty()

    def advance(self, by: float = 1) -> None:
        """Count `by` more units of this stage as done."""
        self.gauge.advance(by)

    def skip(self, by: float = 1) -> None:
        """Count `by` more units of this stage as done without work."""
        self.gauge.skip(by)

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Return the items one by one and count them. If no total was set, their number becomes this stage's total."""
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
        """Report how far this stage is, and how many items are being processed. Other fields are shown as they are."""
        kept = self._kept(extra if in_flight is None else {"in_flight": in_flight, **extra})
        counts = self.gauge.checked(current, total)
        with self._dirty_flag.lock:
            self.gauge.set(*counts)
            self._extra |= kept
        self._dirty_flag.mark_dirty()

    def log(self, message: str, level: str = "info") -> None:
        """Add a line to the operation's log, marked with this stage."""
        self._log(message, level, self.name)

    def weigh(self, weight: float) -> None:
        """Set this stage's share of the operation, relative to the other stages."""
        found = number(weight)
        if found is not None and found > 0:
            self.weight = found
        else:
            self._dirty_flag.warn(
                "weight", f"the weight {brief(weight)} was ignored; expected a finite number greater than 0"
            )

    def _kept(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Return the valid custom fields: fields that clients know must have the expected shape."""
        if not extra:
            return extra
        try:
            kept, rejected = fit(payloads.Stage, {**tree(extra, MAX_EXTRA_BYTES).value, "name": self.name})
        except TooLarge as error:
            self._dirty_flag.warn("stage", f"the fields of stage {self.name} were ignored, because {error}")
            return {}
        if rejected:
            self._dirty_flag.warn(
                "stage",
                f"invalid fields of stage {self.name} were ignored (docs/protocol.md has the valid values):"
                f" {', '.join(rejected)}",
            )
        kept.pop("name", None)
        return kept

    @property
    def percent(self) -> float | None:
        """How much of the stage is done, 0 to 100, by its count; 100 if it succeeded without a count or a total."""
        percent = self.gauge.percent
        if self.status == "succeeded" and (percent is None or not self.gauge.current):
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

    def join(self) -> None:
        """From now on report what is added. What was counted so far is reported by another process."""
        self._sent = self._described = self._told()

    @property
    def has_changed(self) -> bool:
        """Whether there is something to report that was not sent."""
        return self._sent != self._told()

    def describe_added(self, now: float) -> dict[str, Any]:
        """Return the stage with what was added to its count and total since it was last sent."""
        self._described = told = self._told()
        described = self.describe(now)
        if described["current"] is not None:
            described["current"] = told.current - self._sent.current
        if described["total"] is not None:
            described["total"] = told.total - self._sent.total
        return described

    def sent(self) -> None:
        """Note that what was described last is sent."""
        self._sent = self._described

    def _told(self) -> "_Told":
        return _Told(self.gauge.current, self.gauge.total or 0, self.status, self.weight, tuple(self._extra.items()))


class _Told(NamedTuple):
    """What a process that counts together with others has reported of a stage."""

    current: float = 0
    total: float = 0
    status: str = ""
    weight: float = 1
    extra: tuple[tuple[str, Any], ...] = ()


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
