"""An operation's children: the state of each child, and their sum. No I/O happens here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any

import orjson

from progress_broker.model.event import END, PROGRESS, Event
from progress_broker.model.operation import ChildrenSummary, Status
from progress_broker.model.position import START, is_canonical, milliseconds, order
from progress_broker.model.progress import number, reported_percent
from progress_broker.model.validation import fits_nesting_limit

MAX_READ = 4_000
"""About how many children are read per generation, over all lanes. If there are more, only a sample is read: every
second child, every third, and so on."""
MAX_GENERATIONS = 4
"""How many levels of descendants are read: a child that reports no progress itself gets that of its own children."""
MAX_SHOWN = 100
"""The maximum number of children that are listed one by one."""
_KIND_CHARS, _TITLE_CHARS, _MESSAGE_CHARS = 128, 512, 200
_MAX_WEIGHT = 1e9
_LATEST_MS = 1 << 53
_AT_WORK = frozenset({Status.RUNNING, Status.STALLED, Status.CANCELLING})


def mean(parts: Iterable[tuple[float, float]]) -> float:
    """Return the mean of pairs of weight and percentage. It is 100 only if every percentage is 100."""
    pairs = list(parts)
    missing = fsum(weight * (100 - percent) for weight, percent in pairs) / fsum(weight for weight, _ in pairs)
    return 100.0 if missing <= 0 else min(99.99, int((100 - missing) * 100 + 1e-9) / 100)


@dataclass(slots=True)
class Child:
    """A child, as clients that watch its parent see it."""

    id: str
    kind: str = "operation"
    title: str | None = None
    weight: float = 1
    status: Status = Status.PENDING
    progress: bytes | None = None
    """The newest progress, as JSON, until `reported` has parsed it."""
    position: bytes = START.encode()
    """The position of the last event that was received."""
    created: int = 0
    is_parent: bool = False
    stands_for: float = 1
    """How many children it represents, where only a sample of the children is read."""
    _shown: tuple[float | None, str | None] = (None, None)

    @property
    def reported(self) -> tuple[float | None, str | None]:
        """The last reported percentage and message. Only these are kept, because progress may be large."""
        if self.progress is not None:
            self._shown, self.progress = _kept(_object(self.progress)), None
        return self._shown

    @property
    def percent(self) -> float | None:
        """The percentage that it reported itself."""
        percent, _ = self.reported
        return 100.0 if self.status is Status.SUCCEEDED else percent

    def catch_up(self, later: "Child") -> None:
        """Copy the newer state of another record of this child."""
        self.status, self.position = later.status, later.position
        self.progress, self._shown = None, later.reported

    def apply(self, event: Event) -> bool:
        """Apply an event; return whether the child looks different now."""
        if order(event.position) <= order(self.position):
            return False
        self.position = event.position
        if event.type == PROGRESS:
            self.progress = event.data
            return True
        return event.type in (END, b"status") and self._become(_object(event.data), ended=event.type == END)

    def _become(self, change: Mapping[str, Any], *, ended: bool) -> bool:
        try:
            self.status = Status(str(change.get("status")))
        except ValueError:
            self.status = Status.FAILED if ended else self.status  # an `end` ends it even if its data is invalid
        if "attempt" in change:
            self.progress, self._shown = None, (None, None)  # a new attempt starts at zero
        return True


def read_child(id: bytes, state: Sequence[bytes | None], stands_for: float = 1) -> Child | None:
    """Return a child from the reply of `lua/children.lua`, or None if another program overwrote its data."""
    status, spec, progress, position, created, has_children = state
    created_with = _object(spec)
    title = created_with.get("title")
    try:
        return Child(
            id.decode(),
            str(created_with.get("kind", "operation")),
            None if title is None else str(title),
            _weight(created_with),
            Status((status or b"").decode()),
            progress,
            position if position and is_canonical(position) else START.encode(),
            min(int(created or 0), _LATEST_MS),
            has_children is not None,
            stands_for,
        )
    except ValueError:
        return None


def read_child_notice(data: bytes) -> Child | None:
    """Return the child that a `child` event describes, in its state right after creation."""
    fields = _object(data)
    id, title = fields.get("operation"), fields.get("title")
    if not isinstance(id, str):
        return None
    return Child(id, str(fields.get("kind", "operation")), None if title is None else str(title), _weight(fields))


@dataclass(slots=True)
class Tree:
    """The descendants of operations, as far as they are needed to compute the operations' progress."""

    children: dict[str, Child] = field(default_factory=dict)
    under: dict[str, list[str]] = field(default_factory=dict)
    """The ids of an operation's children."""
    whole: bool = True
    """Whether all children were read, and not only a sample."""
    lanes_away: set[int] = field(default_factory=set)
    """The lanes that could not be reached. Their children are missing."""

    def keep(self, earlier: "Tree", missing: Callable[[str], bool]) -> None:
        """Keep, of what was read earlier, the children that are missing now because their lanes are away."""
        for parent, ids in earlier.under.items():
            kept = [id for id in ids if missing(id) and id not in self.children]
            if kept and (parent in self.under or missing(parent)):
                self.under.setdefault(parent, []).extend(kept)
                self.children |= {id: earlier.children[id] for id in kept}
        self.lanes_away &= earlier.lanes_away

    def add(self, parent: str, children: Iterable[Child]) -> None:
        """Set an operation's children. An operation that names itself as its parent is ignored."""
        known = {child.id: child for child in children if child.id != parent}
        self.children |= known
        self.under[parent] = list(known)

    def add_one(self, parent: str, child: Child) -> None:
        """Add one child to an operation's children."""
        if child.id != parent:
            self.children[child.id] = child
            self.under.setdefault(parent, []).append(child.id)

    def of(self, parent: str) -> list[Child]:
        """Return an operation's children."""
        return [self.children[id] for id in self.under.get(parent, ())]

    def size(self, parent: str, above: tuple[str, ...] = ()) -> int:
        """Return how many descendants of an operation were read."""
        if parent in above or len(above) >= MAX_GENERATIONS:
            return 0
        line = (*above, parent)
        return sum(1 + self.size(id, line) for id in self.under.get(parent, ()))

    @property
    def changed_ms(self) -> int:
        """The time of the newest event of any child, in milliseconds since 1970."""
        return max((milliseconds(child.position) for child in self.children.values()), default=0)

    def summary(self, parent: str, above: tuple[str, ...] = ()) -> ChildrenSummary | None:
        """Return the summary of an operation's children, or None if it has none."""
        children, partial = self.of(parent), bool(self.lanes_away)
        if not children and not partial:
            return None
        line = (*above, parent)
        return ChildrenSummary(
            total=_count(children, frozenset(Status)),
            done=_count(children, frozenset(status for status in Status if status.done)),
            failed=_count(children, frozenset({Status.FAILED})),
            cancelled=_count(children, frozenset({Status.CANCELLED})),
            running=_count(children, _AT_WORK),
            percent=None if partial else self._mean(children, line),
            partial=partial,
        )

    def _mean(self, children: Iterable[Child], line: tuple[str, ...]) -> float:
        return mean((child.weight * child.stands_for, self.percent(child, line) or 0.0) for child in children)

    def percent(self, child: Child, above: tuple[str, ...] = ()) -> float | None:
        """Return a child's percentage: what it reported itself, else that of its children, else None."""
        if child.percent is not None or child.id in above or len(above) >= MAX_GENERATIONS:  # a cycle, or too deep
            return child.percent
        summary = self.summary(child.id, above)
        return None if summary is None else summary.percent

    def shown(self, parent: str) -> list[Child]:
        """Return the children to list, oldest first. If there are too many, running ones go first, then pending."""
        chosen = sorted(self.of(parent), key=lambda child: _urgency(child.status))[:MAX_SHOWN]
        return sorted(chosen, key=lambda child: (child.created, child.id))

    def listed(self, parent: str) -> list[dict[str, Any]]:
        """Return the children to list, as short JSON objects."""
        return [self._brief(child, parent) for child in self.shown(parent)]

    def _brief(self, child: Child, parent: str) -> dict[str, Any]:
        percent, (_, message) = self.percent(child, (parent,)), child.reported
        brief = {
            "id": child.id,
            "kind": child.kind[:_KIND_CHARS],
            "title": child.title and child.title[:_TITLE_CHARS],
            "status": child.status,
            "percent": percent,
            "weight": child.weight,
        }
        return brief if message is None else brief | {"message": message}


def with_rollup(
    progress: dict[str, Any] | None, children: ChildrenSummary | None, status: Status
) -> dict[str, Any] | None:
    """Return the `progress` to show. If the operation reports no percentage, that of its children is filled in."""
    if children is None or reported_percent(progress or {}) is not None:
        return progress
    percent = 100.0 if status is Status.SUCCEEDED else children.percent
    return progress if percent is None else (progress or {}) | {"percent": percent, "rolled_up": True}


def _urgency(status: Status) -> int:
    return 0 if status in _AT_WORK else 1 + status.done


def _kept(progress: Mapping[str, Any]) -> tuple[float | None, str | None]:
    message = progress.get("message")
    return reported_percent(progress), message[:_MESSAGE_CHARS] if isinstance(message, str) else None


def _weight(fields: Mapping[str, Any]) -> float:
    return min(_MAX_WEIGHT, number(fields.get("weight")) or 1)


def _count(children: Iterable[Child], statuses: frozenset[Status]) -> int:
    return round(fsum(child.stands_for for child in children if child.status in statuses))


def _object(data: bytes | None) -> dict[str, Any]:
    try:
        value = orjson.loads(data) if data is not None else None
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) and fits_nesting_limit(value) else {}
