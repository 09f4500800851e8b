"""The metrics of several processes, added up. No counter falls when a process ends."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from progress_server.observability.metrics import PREFIX

Mode = Literal["sum", "max", "min"]

_SUMMED = frozenset(
    {"streams", "streams_max", "operations_watched", "websockets", "signal_requests", "clients_slow", "tasks"}
)
_LEAST = ("ready", "feed_connected", "certificate_expiry_timestamp_seconds")
_OF_PROCESS: dict[str, Mode] = {
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_open_fds": "sum",
    "process_max_fds": "min",
    "process_start_time_seconds": "min",
}
SHARED = frozenset(f"{PREFIX}{name}" for name in ("operations_ended", "feed_events", "redis_failovers"))
"""Counters that are the same in each process, as each of them sees all events: the largest one counts."""

_MODES: dict[Mode, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels, without that of the process."""


def mode_of(family: str) -> Mode:
    """Return how the values of a gauge are joined. Of what Redis reports, and of lags, the largest counts."""
    name = family.removeprefix(PREFIX)
    if name in _SUMMED:
        return "sum"
    return "min" if name in _LEAST else _OF_PROCESS.get(family, "max")


class Totals(Collector):
    """Adds up what processes reported last."""

    def __init__(self) -> None:
        self._last: dict[Hashable, list[Metric]] = {}
        self._remainder: defaultdict[Sample, float] = defaultdict(float)
        """What processes that have ended had counted."""
        self._most: dict[Sample, float] = {}
        """The largest value of each shared counter so far."""
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add(self, process: Hashable, text: str) -> None:
        """Take the metrics of a process, in the Prometheus text format, in place of its earlier ones."""
        self._last[process] = list(text_string_to_metric_families(text))

    def ended(self, process: Hashable) -> None:
        """Keep the counters of a process that has ended, and drop its gauges."""
        for family in self._last.pop(process, ()):
            if _is_added(family):
                for sample in family.samples:
                    self._remainder[_key(sample)] += sample.value

    def text(self) -> str:
        """Return the totals in the Prometheus text format."""
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        """Yield each family with its totals."""
        families: dict[str, list[Metric]] = defaultdict(list)
        for of_process in self._last.values():
            for family in of_process:
                families[family.name].append(family)
        for same in families.values():
            yield self._joined(same)

    def _joined(self, families: list[Metric]) -> Metric:
        first = families[0]
        values: dict[Sample, list[float]] = defaultdict(list)
        for family in families:
            for sample in family.samples:
                values[_key(sample)].append(sample.value)
        join = self._join(first)
        joined = Metric(first.name, first.documentation, first.type)
        for (name, labels), numbers in values.items():
            joined.add_sample(name, dict(labels), join((name, labels), numbers))
        return joined

    def _join(self, family: Metric) -> Callable[[Sample, Iterable[float]], float]:
        if _is_added(family):
            return lambda key, numbers: sum(numbers) + self._remainder.get(key, 0.0)
        if family.name in SHARED:
            return self._join_shared
        mode = _MODES[mode_of(family.name)]
        return lambda _, numbers: mode(numbers)

    def _join_shared(self, key: Sample, numbers: Iterable[float]) -> float:
        self._most[key] = max(self._most.get(key, 0.0), *numbers)
        return self._most[key]


def _is_added(family: Metric) -> bool:
    return family.type in ("counter", "histogram") and family.name not in SHARED


def _key(sample: Any) -> Sample:
    return sample.name, tuple(sorted((name, value) for name, value in sample.labels.items() if name != "pid"))
