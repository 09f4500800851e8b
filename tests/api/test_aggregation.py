"""The metrics of several processes, added up."""

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from progress_server.observability.aggregation import SHARED, Totals, mode_of
from tests.replica_metrics import replica_metrics


def text_of(pid: int, streams: int, events: int, lag: float, ready: int, ended: int) -> str:
    return f"""\
# HELP progress_broker_streams Open streams.
# TYPE progress_broker_streams gauge
progress_broker_streams{{outlet="adopted",pid="{pid}"}} {streams}
# HELP progress_broker_events_total Events.
# TYPE progress_broker_events_total counter
progress_broker_events_total{{pid="{pid}"}} {events}
# HELP progress_broker_feed_lag_seconds Lag.
# TYPE progress_broker_feed_lag_seconds gauge
progress_broker_feed_lag_seconds{{pid="{pid}"}} {lag}
# HELP progress_broker_ready Ready.
# TYPE progress_broker_ready gauge
progress_broker_ready{{pid="{pid}"}} {ready}
# HELP progress_broker_operations_ended_total Ended.
# TYPE progress_broker_operations_ended_total counter
progress_broker_operations_ended_total{{status="failed",pid="{pid}"}} {ended}
# HELP progress_broker_delivery_seconds Seconds.
# TYPE progress_broker_delivery_seconds histogram
progress_broker_delivery_seconds_bucket{{le="1.0",pid="{pid}"}} {events}
progress_broker_delivery_seconds_bucket{{le="+Inf",pid="{pid}"}} {events}
progress_broker_delivery_seconds_count{{pid="{pid}"}} {events}
progress_broker_delivery_seconds_sum{{pid="{pid}"}} {events}
"""


def values(totals: Totals) -> dict[str, float]:
    families = text_string_to_metric_families(totals.text())
    samples = [sample for family in families for sample in family.samples]
    assert all("pid" not in sample.labels for sample in samples)
    return {
        sample.name.removeprefix("progress_broker_"): sample.value for sample in samples if "le" not in sample.labels
    }


def test_what_is_counted_is_added_and_of_the_rest_the_worst_counts() -> None:
    totals = Totals()
    totals.add(1, text_of(1, streams=3, events=10, lag=0.5, ready=1, ended=4))
    totals.add(2, text_of(2, streams=5, events=20, lag=0.1, ready=0, ended=5))
    assert values(totals) == {
        "streams": 8,
        "events_total": 30,
        "feed_lag_seconds": 0.5,
        "ready": 0,
        "operations_ended_total": 5,
        "delivery_seconds_count": 30,
        "delivery_seconds_sum": 30,
    }


def test_no_counter_falls_when_a_process_ends_and_no_gauge_stays() -> None:
    totals = Totals()
    for pid in (1, 2):
        totals.add(pid, text_of(pid, streams=3, events=10, lag=0.5, ready=1, ended=4))
    totals.ended(1)
    found = values(totals)
    assert (found["streams"], found["events_total"], found["operations_ended_total"]) == (3, 20, 4)
    totals.add(3, text_of(3, streams=1, events=1, lag=0.5, ready=1, ended=0))
    found = values(totals)
    assert (found["streams"], found["events_total"], found["delivery_seconds_count"]) == (4, 21, 21)
    totals.ended(2)
    found = values(totals)
    assert (found["events_total"], found["operations_ended_total"]) == (21, 4)


async def test_the_names_are_those_of_metrics_that_there_are() -> None:
    metrics: list[Metric] = await replica_metrics()
    gauges = {metric.name for metric in metrics if metric.type == "gauge"}
    assert {metric.name for metric in metrics if metric.type == "counter"} >= SHARED
    assert {name for name in gauges if mode_of(name) == "sum"} >= {"progress_broker_streams", "process_open_fds"}
    assert {name for name in gauges if mode_of(name) == "min"} >= {
        "progress_broker_ready",
        "progress_broker_feed_connected",
        "process_max_fds",
    }
