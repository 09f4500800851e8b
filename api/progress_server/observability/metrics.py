"""Prometheus metrics of one replica, read from its hub, reaper and tally.

They are computed per scrape. Without scrapes they cost almost nothing.
"""

import asyncio
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
from progress_broker.limits.limiter import Limiter
from progress_broker.operations.reaper import Reaper
from progress_broker.runtime.tally import Tally
from progress_broker.stream.stream import Mode, Stream
from progress_server.context import LiveSettings
from progress_server.http.problems import STATUS_OF_CODE
from progress_server.observability.redis_state import RedisState

PREFIX = "progress_broker_"
_CARRIERS = ("adopted", "asgi", "websocket")
_OUTLETS = (*_CARRIERS, "poll")
_STATES = {Mode.AWAITING: "awaiting", Mode.CATCHING_UP: "catching_up", Mode.LIVE: "live"}


class ReplicaCollector(Collector):
    """The metrics of one replica. A scrape visits every open stream: 3 ms for 10,000 streams."""

    def __init__(self, hub: Hub, reaper: Reaper, state: RedisState, live: LiveSettings, limiter: Limiter) -> None:
        self._hub, self._reaper = hub, reaper
        self._state, self._live, self._limiter = state, live, limiter

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        hub = self._hub
        yield from self._streams()
        yield from self._events()
        yield from self._redis()
        yield from self._operations()
        yield from self._requests()
        yield GaugeMetricFamily(
            f"{PREFIX}ready",
            "1 while this replica accepts new streams, as reported by /readyz; otherwise 0.",
            hub.ready,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}draining",
            "1 while this replica shuts down and asks its clients to reconnect elsewhere.",
            hub.draining,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}tasks", "Tasks of this replica's event loop. A stream has none.", len(asyncio.all_tasks())
        )
        yield GaugeMetricFamily(
            f"{PREFIX}certificate_expiry_timestamp_seconds",
            "When this server's TLS certificate expires, in seconds since 1970. Without TLS it has no sample.",
            self._live.certificate_expires_at,
        )
        yield _counters("reloads", "Reloads of the settings, by result.", "result", self._hub.tally.reloads)
        yield _labelled("build", "Versions of this package and of Python; always 1.", _build())

    def _streams(self) -> Iterator[Metric]:
        hub, tally = self._hub, self._hub.tally
        streams = GaugeMetricFamily(
            f"{PREFIX}streams", "Open streams, by outlet (how events are sent) and state.", labels=("outlet", "state")
        )
        # `_value_`, because an enumeration's `value` and hash run Python code: that would be half the cost of a scrape.
        each = (one for channel in hub.channels for one in channel.subscriptions)
        every: Iterable[Stream] = chain(each, hub.bundles, hub.replays)
        open_now = Counter((one.outlet.kind, one.mode._value_, one.full_since is None) for one in every)
        for outlet in _OUTLETS:  # streams that are still resuming have no outlet: their response has not begun
            for mode, state in _STATES.items():
                count = open_now[outlet, mode.value, True] + open_now[outlet, mode.value, False]
                streams.add_metric((outlet, state), count)
        yield streams
        yield GaugeMetricFamily(
            f"{PREFIX}streams_max",
            "Maximum number of open streams of this replica (max_streams).",
            self._limiter.limits.streams,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}operations_watched",
            "Operations that have at least one subscriber on this replica.",
            len(hub.channels),
        )
        yield GaugeMetricFamily(
            f"{PREFIX}websockets",
            "Open WebSockets. Each operation that a WebSocket follows also counts as a stream.",
            len(hub.connections),
        )
        yield GaugeMetricFamily(
            f"{PREFIX}signal_requests",
            "Open requests of workers that wait for signals over HTTP.",
            len(hub.signal_waits),
        )
        yield _counters("streams_opened", "Streams opened, by the position where they started.", "start", tally.opened)
        yield _counters("streams_closed", "Streams closed, by reason.", "reason", tally.closed)
        yield _counters(
            "streams_rejected", "Requests for a stream that were rejected, by error code.", "reason", tally.rejected
        )
        yield _counters("limits_exceeded", "Times a caller exceeded a limit, by limit.", "limit", tally.limited)
        yield _counters(
            "limiter_mode_changes",
            "Times limits switched between being shared through Redis and being kept by this replica alone.",
            "how",
            tally.limiter_mode_changes,
        )
        yield _callbacks(tally)
        yield _counters(
            "resets",
            "Resets sent to streams that could not resume from their position, by reason.",
            "reason",
            tally.resets,
        )
        slowed = {
            outlet: tally.slowed[outlet] for outlet in _CARRIERS
        }  # without polls: a long poll counts as full as soon as it has an event
        yield _counters("clients_slowed", "Times the send buffer of a client became full, by outlet.", "outlet", slowed)
        family = GaugeMetricFamily(
            f"{PREFIX}clients_slow", "Clients whose send buffer is full now, by outlet.", labels=("outlet",)
        )
        for outlet in _CARRIERS:
            family.add_metric((outlet,), sum(open_now[outlet, mode.value, False] for mode in _STATES))
        yield family
        yield _counter("clients_caught_up", "Times a slow client caught up and became live again.", tally.caught_up)

    def _events(self) -> Iterator[Metric]:
        tally = self._hub.tally
        yield _counter("events", "Events received for operations with subscribers; each is counted once.", tally.events)
        yield _counter(
            "deliveries", "Events times the streams that subscribed to them, before filters.", tally.deliveries
        )
        written = {outlet: tally.written[outlet].bytes for outlet in _CARRIERS}
        yield _counters(
            "written_bytes", "Bytes of events and pings written to clients, before TLS, by outlet.", "outlet", written
        )
        conflated = tally.conflated + self._hub.bundles.members.tally.conflated
        yield _counter(
            "events_conflated", "Progress events skipped for slow clients because a newer one replaced them.", conflated
        )
        yield HistogramMetricFamily(
            f"{PREFIX}delivery_seconds",
            "Seconds from publish (Redis clock) to the write to clients (server clock); one sample per read of a feed.",
            tally.latency_s.cumulated(),
            tally.latency_s.sum,
        )

    def _requests(self) -> Iterator[Metric]:
        tally, labels = self._hub.tally, ("method", "route", "status")
        counts = CounterMetricFamily(
            f"{PREFIX}http_requests", "HTTP requests, by method, route and class of status.", labels=labels
        )
        took = HistogramMetricFamily(
            f"{PREFIX}http_response_seconds", "Seconds from a request to the start of its response.", labels=labels[:2]
        )
        for key, count in tally.requests.counts.items():
            counts.add_metric(key, count)
        for call, histogram in tally.requests.took_s.items():
            took.add_metric(call, histogram.cumulated(), histogram.sum)
        yield counts
        yield took
        problems = {code: tally.problems[code] for code in STATUS_OF_CODE}
        yield _counters(
            "http_requests_rejected", "Requests rejected, including streams, by error code.", "reason", problems
        )
        yield _counter(
            "audit_entries_lost", "Entries of the audit that Redis did not store; the log has them.", tally.audit_lost
        )
        yield _counters(
            "published_events",
            "Events published over HTTP, by outcome: stored, or an error code.",
            "outcome",
            tally.published,
        )
        yield _counters(
            "published_bytes",
            "Bytes of data in events published over HTTP, by outcome.",
            "outcome",
            tally.published_bytes,
        )

    def _operations(self) -> Iterator[Metric]:
        """Yield what Redis has. What is unknown has no sample."""
        state, tally = self._state, self._hub.tally
        operations = GaugeMetricFamily(
            f"{PREFIX}operations",
            "Operations in Redis, by status. Every replica reports the same, at most five seconds old.",
            labels=("status",),
        )
        for status, count in (state.operations or {}).items():
            operations.add_metric((status,), count)
        yield operations
        ended = CounterMetricFamily(
            f"{PREFIX}operations_ended",
            "Operations that ended, by status and kind (the first 50). Every replica counts all: use max, not sum.",
            labels=("status", "kind"),
        )
        for labels, count in tally.ended.items():
            ended.add_metric(labels, count)
        yield ended
        yield GaugeMetricFamily(
            f"{PREFIX}unfinished_idle_seconds",
            "Seconds since the last change of the unfinished operation that has been without one for the longest time.",
            state.unfinished_idle_s,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}expiry_overdue_seconds",
            "Seconds that expired operations have waited to be removed. Replicas remove them within seconds.",
            state.expiry_overdue_s,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}leases_overdue_seconds",
            "Seconds that expired leases have waited to be noticed. Replicas notice them within seconds.",
            state.leases_overdue_s,
        )
        yield GaugeMetricFamily(f"{PREFIX}replicas", "Replicas that are present.", state.replicas)
        yield GaugeMetricFamily(
            f"{PREFIX}settings_differ",
            "Settings that should be the same at all replicas, and are not. `progress-broker replicas` names them.",
            state.settings_differ,
        )

    def _redis(self) -> Iterator[Metric]:
        hub = self._hub
        yield _counter("feed_events", "Events read from the feeds, of all operations.", hub.tally.feed_events)
        yield _counters(
            "probe_refusals",
            "Test events that Redis did not store, by reason. Others' events are rejected for the same reason.",
            "reason",
            hub.tally.probe_refusals,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}feed_connected", "1 while this replica is connected to every feed.", hub.connected
        )
        yield GaugeMetricFamily(
            f"{PREFIX}lanes", "Lanes: each operation belongs to one, and each server of Redis has some.", hub.lanes
        )
        yield GaugeMetricFamily(
            f"{PREFIX}lanes_away",
            "Lanes whose operations get no new streams, because their server of Redis can't be reached.",
            len(hub.lanes_away),
        )
        yield GaugeMetricFamily(
            f"{PREFIX}feed_lag_seconds", "Age of the newest event when it was last read from a feed.", hub.lag_s
        )
        yield GaugeMetricFamily(
            f"{PREFIX}feed_read_age_seconds",
            "Seconds since Redis last answered a read of a feed. Up to 2 is normal when idle.",
            max(hub.clock() - feed.answered_at for feed in hub.feeds),
        )
        yield _counter(
            "feed_interruptions",
            "Times the connection to a feed was lost and restored.",
            sum(feed.interruptions for feed in hub.feeds),
        )
        yield _counter(
            "feed_moves",
            "Times a feed was read on at another server of a Cluster, without an interruption.",
            sum(feed.moves for feed in hub.feeds),
        )
        yield GaugeMetricFamily(
            f"{PREFIX}redis_full", "1 while Redis rejects events because it is out of memory or disk.", hub.probes.full
        )
        masters = hub.masters
        yield GaugeMetricFamily(
            f"{PREFIX}redis_memory_used_bytes",
            "Memory that Redis uses, as counted against its maximum.",
            masters.memory_used,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}redis_memory_max_bytes", "Maximum memory of Redis; 0 means no limit.", masters.memory_max
        )
        # What Redis does not report has no sample.
        yield CounterMetricFamily(
            f"{PREFIX}redis_failovers", "Times a replica of Redis was promoted to master.", masters.failovers
        )
        yield GaugeMetricFamily(
            f"{PREFIX}redis_masters_without_replica",
            "Masters of a Sentinel set or a Cluster that no replica follows.",
            masters.without_replica,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}redis_masters_unsuitable",
            "Masters that delete keys when they are full, or are too old. The log names them.",
            masters.unsuitable,
        )
        trips = hub.client_metrics
        took = HistogramMetricFamily(
            f"{PREFIX}redis_call_seconds", "Duration of Redis calls in seconds, by call.", labels=("call",)
        )
        for call, histogram in trips.took_s.items():
            took.add_metric((call,), histogram.cumulated(), histogram.sum)
        yield took
        yield _counters("redis_call_failures", "Redis calls that failed, by call.", "call", trips.failed)
        yield _counter(
            "redis_connections",
            "Connections opened to Redis. It grows when lost connections are replaced.",
            trips.connected,
        )
        reads = sum(feed.reads for feed in hub.feeds)
        yield _counter("feed_reads", "Blocking reads of the feeds that Redis answered.", reads)
        yield _counter("operations_expired", "Expired operations that were removed.", self._reaper.expired)
        ended_by_reaper = {"stalled": self._reaper.stalled, "lost": self._reaper.lost}
        yield _counters(
            "leases_expired",
            "Operations marked as stalled or lost because their worker sent no heartbeat, by step.",
            "step",
            ended_by_reaper,
        )


class ByProcess(Collector):
    """Adds the label `pid` to the metrics of other collectors.

    Several processes may share one address. Without the label their values would be mixed.
    """

    def __init__(self, pid: int, collectors: Iterable[Collector]) -> None:
        self._pid, self._collectors = str(pid), tuple(collectors)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, labelled."""
        for collector in self._collectors:
            for metric in collector.collect():
                metric.samples = [it._replace(labels={**it.labels, "pid": self._pid}) for it in metric.samples]
                yield metric


def registry_of(
    hub: Hub, reaper: Reaper, state: RedisState, live: LiveSettings, limiter: Limiter, *, processes: int
) -> CollectorRegistry:
    """Return a registry for one app: a process may hold several apps, and an address several processes."""
    registry = CollectorRegistry()
    collectors = (ReplicaCollector(hub, reaper, state, live, limiter), ProcessCollector(registry=None))
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
    help = "Calls to the authorization back end, by action and outcome."
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
    except PackageNotFoundError:  # it runs from source, without being installed
        ours = "unknown"
    return {"version": ours, "python": platform.python_version()}
