"""A replica's counters for metrics, which are updated as things happen. Other metrics are computed at each scrape."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

ANSWER_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_ANSWERS = ("allowed", "denied", "busy", "timeout", "unreachable", "malformed")
CALLBACKS = (
    *((action, outcome) for action in ("connect", "call") for outcome in _ANSWERS),
    *(("disconnect", outcome) for outcome in ("sent", "failed", "dropped")),
)


class Histogram:
    """The number of values per range, and the sum of all values."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulated(self) -> list[tuple[str, float]]:
        """Return the number of values up to each bound, and up to `+Inf`."""
        total, counts = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            counts.append((bound, float(total)))
        return counts


@dataclass(slots=True, eq=False)
class BytesWritten:
    """How much was written to outlets of one kind."""

    bytes: int = 0


class _ByKind(dict[str, BytesWritten]):
    def __missing__(self, kind: str) -> BytesWritten:
        return self.setdefault(kind, BytesWritten())


def _zeros(*names: str) -> Counter[str]:
    """Return a counter with these names at 0 from the start: to compute a rate, the first increase needs a zero before
    it."""
    return Counter(dict.fromkeys(names, 0))


class Requests:
    """Answered requests: their number by method, route and status class, and the time until their response began."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.took_s: dict[tuple[str, str], Histogram] = {}

    def add(self, method: str, route: str, status: str, took_s: float) -> None:
        """Count a request. The route is its template, so the number of different routes is limited."""
        self.counts[method, route, status] += 1
        histogram = self.took_s.get((method, route))
        if histogram is None:
            histogram = self.took_s[method, route] = Histogram(ANSWER_BOUNDS_S)
        histogram.observe(took_s)


OTHER_KIND = "other"
MOST_KINDS = 50
"""How many kinds of operations have a label of their own: kinds come from clients."""


@dataclass(slots=True)
class Tally:
    """Counts since the process started. Labels do not come from clients, or are limited in number."""

    opened: Counter[str] = field(default_factory=lambda: _zeros("resume", "start", "snapshot"))
    closed: Counter[str] = field(default_factory=lambda: _zeros("client", "ended", "max-age", "stuck", "draining"))
    callbacks: Counter[tuple[str, str]] = field(default_factory=lambda: Counter(dict.fromkeys(CALLBACKS, 0)))
    """Requests to the user's own back end, by action and outcome."""
    rejected: Counter[str] = field(default_factory=lambda: _zeros("at-capacity", "storage-unavailable", "not-found"))
    limited: Counter[str] = field(
        default_factory=lambda: _zeros(
            "requests", "sent-bytes", "streams", "address", "replica", "handshakes", "questions"
        )
    )
    limiter_mode_changes: Counter[str] = field(default_factory=lambda: _zeros("alone", "together"))
    problems: Counter[str] = field(default_factory=Counter)
    requests: Requests = field(default_factory=Requests)
    published: Counter[str] = field(default_factory=lambda: _zeros("stored"))
    published_bytes: Counter[str] = field(default_factory=lambda: _zeros("stored"))
    resets: Counter[str] = field(default_factory=lambda: _zeros("trimmed", "lost", "too-many"))
    events: int = 0
    deliveries: int = 0
    written: dict[str, BytesWritten] = field(default_factory=_ByKind)
    slowed: Counter[str] = field(default_factory=Counter)
    caught_up: int = 0
    conflated: int = 0
    audit_lost: int = 0
    feed_events: int = 0
    ended: Counter[tuple[str, str]] = field(
        default_factory=lambda: Counter({(status, OTHER_KIND): 0 for status in ("succeeded", "failed", "cancelled")})
    )
    """Operations that ended, by status and kind."""
    probe_refusals: Counter[str] = field(default_factory=lambda: _zeros("full", "read-only", "away", "failed"))
    reloads: Counter[str] = field(default_factory=lambda: _zeros("succeeded", "failed"))
    latency_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))
    _kinds: set[str] = field(default_factory=set)

    def count_end(self, status: str, kind: str) -> None:
        """Count an operation that ended. Kinds beyond the first fifty are counted together."""
        if kind not in self._kinds:
            if len(self._kinds) >= MOST_KINDS:
                kind = OTHER_KIND
            self._kinds.add(kind)
        self.ended[status, kind] += 1
