"""What a replica's hub, reaper and tally hold, as Prometheus has it. It is looked up only when somebody asks."""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import chain

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from progress_broker.hub import Hub
from progress_broker.operations.reaper import Reaper
from progress_broker.runtime.tally import Tally
from progress_broker.stream.stream import Mode, Stream
from progress_server.http.problems import STATUS_OF_CODE

PREFIX = "progress_broker_"
_CARRIERS = ("adopted", "asgi", "websocket")
_OUTLETS = (*_CARRIERS, "poll")
_STATES = {Mode.AWAITING: "awaiting", Mode.CATCHING_UP: "catching_up", Mode.LIVE: "live"}


class ReplicaCollector(Collector):
    """The figures of one replica. It walks its streams: three milliseconds for ten thousand."""

    def __init__(self, hub: Hub, reaper: Reaper) -> None:
        self._hub, self._reaper = hub, reaper

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        hub = self._hub
        yield from self._streams()
        yield from self._events()
        yield from self._redis()
        yield from self._requests()
        yield GaugeMetricFamily(f"{PREFIX}ready", "1 while it takes new streams, as `/readyz` tells.", hub.ready)
        yield GaugeMetricFamily(f"{PREFIX}draining", "1 while it sends its clients away.", hub.draining)
        yield _labelled("build", "What runs, with the value 1.", _build())

    def _streams(self) -> Iterator[Metric]:
        hub, tally = self._hub, self._hub.tally
        streams = GaugeMetricFamily(f"{PREFIX}streams", "Streams open now.", labels=("outlet", "state"))
        # `_value_`, as an enumeration's `value` and hash run Python code: half of what a scrape would cost.
        each = (one for channel in hub.channels for one in channel.subscriptions)
        every: Iterable[Stream] = chain(each, hub.bundles)
        open_now = Counter((one.outlet.kind, one.mode._value_, one.full_since is None) for one in every)
        for outlet in _OUTLETS:  # without those that are being placed, whose response has not begun
            for mode, state in _STATES.items():
                count = open_now[outlet, mode.value, True] + open_now[outlet, mode.value, False]
                streams.add_metric((outlet, state), count)
        yield streams
        yield GaugeMetricFamily(f"{PREFIX}operations_watched", "Operations that somebody watches.", len(hub.channels))
        yield GaugeMetricFamily(
            f"{PREFIX}websockets", "WebSockets open; each operation that one follows is a stream.", len(hub.connections)
        )
        yield _counters("streams_opened", "Streams opened, by where they began.", "start", tally.opened)
        yield _counters("streams_closed", "Streams closed, by why.", "reason", tally.closed)
        yield _counters("streams_refused", "Requests for a stream that got none, by why.", "reason", tally.refused)
        yield _counters("limited", "Times a caller met a limit.", "limit", tally.limited)
        yield _counters(
            "limits_kept",
            "Times Redis went, or came, so that limits were kept alone or together.",
            "how",
            tally.limits_kept,
        )
        yield _callbacks(tally)
        yield _counters("resets", "Streams told that they can't go on from their position.", "reason", tally.resets)
        slowed = {outlet: tally.slowed[outlet] for outlet in _CARRIERS}  # a poll says so when it has its answer
        yield _counters("clients_slowed", "Times a client had no room for more.", "outlet", slowed)
        family = GaugeMetricFamily(f"{PREFIX}clients_slow", "Clients that have no room now.", labels=("outlet",))
        for outlet in _CARRIERS:
            family.add_metric((outlet,), sum(open_now[outlet, mode.value, False] for mode in _STATES))
        yield family
        yield _counter("clients_caught_up", "Times a slow client was live again.", tally.caught_up)

    def _events(self) -> Iterator[Metric]:
        tally = self._hub.tally
        yield _counter("events", "Events of watched operations, each counted once.", tally.events)
        yield _counter("deliveries", "Those events times the streams that watched, before filters.", tally.deliveries)
        written = {outlet: tally.written[outlet].bytes for outlet in _CARRIERS}
        yield _counters("written_bytes", "Bytes of events and pings written, before TLS.", "outlet", written)
        conflated = tally.conflated + self._hub.bundles.members.tally.conflated
        yield _counter("events_conflated", "Superseded progress left out for slow clients.", conflated)
        yield HistogramMetricFamily(
            f"{PREFIX}delivery_seconds",
            "From publish to the write to clients, by Redis' clock and ours; one sample a read.",
            tally.latency_s.cumulated(),
            tally.latency_s.sum,
        )

    def _requests(self) -> Iterator[Metric]:
        tally, labels = self._hub.tally, ("method", "route", "status")
        counts = CounterMetricFamily(f"{PREFIX}http_requests", "Requests, by how they were answered.", labels=labels)
        took = HistogramMetricFamily(
            f"{PREFIX}http_answer_seconds", "From a request to the first word of its answer.", labels=labels[:2]
        )
        for key, count in tally.requests.counts.items():
            counts.add_metric(key, count)
        for call, histogram in tally.requests.took_s.items():
            took.add_metric(call, histogram.cumulated(), histogram.sum)
        yield counts
        yield took
        problems = {code: tally.problems[code] for code in STATUS_OF_CODE}
        yield _counters("requests_refused", "Requests that were refused, streams too, by why.", "reason", problems)
        yield _counters("published_events", "Events sent over HTTP, by what came of it.", "outcome", tally.published)
        yield _counters("published_bytes", "Bytes of their data.", "outcome", tally.published_bytes)

    def _redis(self) -> Iterator[Metric]:
        hub = self._hub
        yield GaugeMetricFamily(f"{PREFIX}feed_connected", "1 while every feed is read.", hub.connected)
        yield GaugeMetricFamily(f"{PREFIX}feed_lag_seconds", "Age of the newest event when last read.", hub.lag_s)
        yield GaugeMetricFamily(
            f"{PREFIX}feed_silence_seconds",
            "Since Redis answered; 2 when idle.",
            max(hub.clock() - feed.answered_at for feed in hub.feeds),
        )
        yield _counter(
            "feed_interruptions",
            "Times the feed was lost and reconnected.",
            sum(feed.interruptions for feed in hub.feeds),
        )
        yield GaugeMetricFamily(
            f"{PREFIX}redis_full", "1 while Redis takes no events, out of memory or disk.", hub.probe.full
        )
        memory = hub.memory
        yield GaugeMetricFamily(
            f"{PREFIX}redis_memory_used_bytes", "Memory that Redis uses, of its maximum.", memory.used
        )
        yield GaugeMetricFamily(
            f"{PREFIX}redis_memory_max_bytes", "Memory that Redis may use; 0 without a bound.", memory.maximum
        )
        trips = hub.round_trips
        took = HistogramMetricFamily(f"{PREFIX}redis_seconds", "What calls of Redis took.", labels=("call",))
        for call, histogram in trips.took_s.items():
            took.add_metric((call,), histogram.cumulated(), histogram.sum)
        yield took
        yield _counters("redis_failures", "Calls of Redis that failed.", "call", trips.failed)
        yield _counter("redis_connections", "Connections made to Redis, whose losses are made good.", trips.connected)
        reads = sum(feed.reads for feed in hub.feeds)
        yield _counter("feed_reads", "Blocking reads of the feeds that Redis answered.", reads)
        yield _counter("swept", "Operations whose time had passed, removed.", self._reaper.swept)
        reaped = {"stalled": self._reaper.stalled, "lost": self._reaper.lost}
        yield _counters("reaped", "Operations taken a step on, as their worker was silent.", "step", reaped)


class ByProcess(Collector):
    """The metrics of others, each told to be this process': where many answer one address, they must not be mixed."""

    def __init__(self, pid: int, collectors: Iterable[Collector]) -> None:
        self._pid, self._collectors = str(pid), tuple(collectors)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric, labelled."""
        for collector in self._collectors:
            for metric in collector.collect():
                metric.samples = [it._replace(labels={**it.labels, "pid": self._pid}) for it in metric.samples]
                yield metric


def registry_of(hub: Hub, reaper: Reaper, *, processes: int) -> CollectorRegistry:
    """Return a registry of an app's own, as there may be many apps in a process, and many processes at an address."""
    registry = CollectorRegistry()
    collectors = (ReplicaCollector(hub, reaper), ProcessCollector(registry=None))
    for collector in collectors if processes == 1 else (ByProcess(os.getpid(), collectors),):
        registry.register(collector)
    return registry


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", help, value)


def _counters(name: str, help: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", help, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _callbacks(tally: Tally) -> Metric:
    help = "Questions to the back end that decides who may come in, and what it is told, by how that went."
    family = CounterMetricFamily(f"{PREFIX}callbacks", help, labels=("action", "outcome"))
    for labels, count in tally.callbacks.items():
        family.add_metric(labels, count)
    return family


def _labelled(name: str, help: str, labels: dict[str, str]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}{name}_info", help, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), 1)
    return family


def _build() -> dict[str, str]:
    try:
        ours = version("progress-broker")
    except PackageNotFoundError:  # it runs from its sources
        ours = "unknown"
    return {"version": ours, "python": platform.python_version()}
