"""The content of `/metrics`, parsed as Prometheus does."""

import asyncio
import logging
import os
from typing import Any

import httpx
import pytest
import redis.asyncio as aioredis
import redis.exceptions
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from progress_broker.errors import StorageUnavailable
from progress_broker.hub import Hub
from progress_broker.live.feeds.batch import Batch
from progress_broker.model.event import Event
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Histogram
from progress_broker.settings import Settings
from progress_server.app import create_app
from tests.api.test_operations import OPS, create, finish, publish
from tests.api.test_stream import until
from tests.conftest import make_settings
from tests.replica_metrics import registry_for
from tests.servers import eventually


class Figures:
    """The samples of a scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in read_text(text) for sample in family.samples]
        self.names = {sample.name for sample in self._samples}

    def __call__(self, name: str, **labels: str) -> float:
        """Return the one sample of that name with these labels."""
        name = f"progress_broker_{name}"
        [value] = [it.value for it in self._samples if it.name == name and labels.items() <= it.labels.items()]
        return value

    def all(self, name: str) -> list[Any]:
        return [it for it in self._samples if it.name == f"progress_broker_{name}"]


async def scrape(http: httpx.AsyncClient) -> Figures:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Figures(answer.text)


async def test_it_is_there_in_both_formats(http: httpx.AsyncClient) -> None:
    assert (await scrape(http))("build_info") == 1
    answer = await http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "progress_broker_streams_closed" in [family.name for family in read_openmetrics(answer.text)]


async def test_it_tells_of_the_process(http: httpx.AsyncClient) -> None:
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= (
        await scrape(http)
    ).names


@pytest.mark.parametrize("outlet", ["adopted", "asgi"])
async def test_a_stream_is_counted_from_its_opening_to_its_end(http: httpx.AsyncClient, outlet: str) -> None:
    await create(http, id="a")
    before = await scrape(http)
    assert sum(it.value for it in before.all("streams")) == 0
    async with http.stream("GET", f"{OPS}/a/stream") as answer:
        stream = answer.aiter_bytes()
        await until(stream, b"snapshot")
        await publish(http, "a", "log", {"message": "m"})
        await until(stream, b"event: log")
        during = await scrape(http)
        assert during("streams", outlet=outlet, state="live") == 1
        assert sum(it.value for it in during.all("streams")) == 1
        assert (during("operations_watched"), during("streams_opened_total", start="snapshot")) == (1, 1)
        assert during("deliveries_total") == during("events_total") >= 1
        assert during("written_bytes_total", outlet=outlet) > 0
        assert during("feed_reads_total") >= 1
        await finish(http, "a")
        await until(stream, b"event: end")
    await eventually(lambda: _is(http, 1, "streams_closed_total", reason="ended"), "its end is counted")
    after = await scrape(http)
    assert sum(it.value for it in after.all("streams")) == after("operations_watched") == 0
    assert after("events_total") == during("events_total") + 1
    assert after("delivery_seconds_count") >= 2
    assert after("delivery_seconds_bucket", le="+Inf") == after("delivery_seconds_count")
    assert 0 <= after("delivery_seconds_sum") < 30


async def _is(http: httpx.AsyncClient, value: float, name: str, **labels: str) -> bool:
    return (await scrape(http))(name, **labels) == value


async def test_who_resumes_and_who_can_not(http: httpx.AsyncClient) -> None:
    created = await create(http, id="a")
    await finish(http, "a")
    await http.get(f"{OPS}/a/stream", headers={"Last-Event-ID": str(created["position"])})
    await http.get(f"{OPS}/a/stream", params={"from": "start"})
    await http.get(f"{OPS}/a/stream", headers={"Last-Event-ID": "99999999999999-0"})
    told = await scrape(http)
    assert (told("streams_opened_total", start="resume"), told("streams_opened_total", start="start")) == (2, 1)
    assert (told("resets_total", reason="lost"), told("resets_total", reason="trimmed")) == (1, 0)


async def test_rejections_by_reason(http: httpx.AsyncClient, app: Any) -> None:
    await http.get(f"{OPS}/nope/stream")
    await http.get(f"{OPS}/nope/stream", params={"last_event_id": "x"})
    told = await scrape(http)
    assert (told("streams_rejected_total", reason="not-found"), told("streams_rejected_total", reason="invalid")) == (
        1,
        1,
    )
    await eventually(lambda: _is(http, 1, "ready"), "delivery is proved")
    app.state.context.hub.draining = True
    await http.get(f"{OPS}/nope/stream")
    told = await scrape(http)
    assert (told("streams_rejected_total", reason="draining"), told("draining"), told("ready")) == (1, 1, 0)
    assert sum(it.value for it in told.all("streams_opened_total")) == 0, "who is rejected has opened nothing"
    assert sum(it.value for it in told.all("streams_closed_total")) == 0


@pytest.mark.usefixtures("admission_clock")
class TestAFullGate:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(handshakes_per_s=1)

    async def test_counts_whom_it_rejects(self, http: httpx.AsyncClient) -> None:
        for _ in range(3):
            await http.get(f"{OPS}/nope/stream")
        told = await scrape(http)
        assert told("streams_rejected_total", reason="at-capacity") == 2
        assert told("streams_rejected_total", reason="not-found") == 1


class TestASlowClient:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(client_buffer_bytes=4096, stuck_timeout_s=0.5, ping_s=0.2)

    async def test_is_counted_when_it_is_full_and_when_it_is_cut_off(
        self, http: httpx.AsyncClient, app: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "progress_broker.stream.registry")
        await create(http, id="a")
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port, limit=4096)
        writer.write(b"GET /v1/operations/a/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"snapshot")
        tally = app.state.context.hub.tally

        async def fill() -> bool:
            await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": "x" * 60_000}}] * 3)
            return bool(tally.closed["stuck"])

        async def is_slow() -> bool:
            await fill()
            return (await scrape(http))("clients_slow", outlet="adopted") == 1

        await eventually(is_slow, "it is seen to be slow")
        await eventually(fill, "it is cut off")
        told = await scrape(http)
        assert told("clients_slowed_total", outlet="adopted") >= 1
        assert told("clients_slow", outlet="adopted") == 0
        assert told("streams_closed_total", reason="stuck") == 1
        assert "closed after" in caplog.text, "which somebody may have to look into"
        writer.close()


async def test_redis_away_is_seen(http: httpx.AsyncClient, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await scrape(http)
    assert (told("feed_connected"), told("feed_interruptions_total")) == (1, 0)
    [feed] = app.state.context.hub.feeds

    async def fails() -> None:
        raise StorageUnavailable("cut")

    with monkeypatch.context() as broken:
        broken.setattr(feed, "_read", fails)
        await create(http, id="a")  # wakes the pending read
        await eventually(lambda: feed.interruptions, "the feed is interrupted")
    await eventually(lambda: _is(http, 1, "feed_connected"), "it is back")
    told = await scrape(http)
    assert told("feed_interruptions_total") >= 1
    assert 0 <= told("feed_read_age_seconds") < 30


class TestRoundTrips:
    async def test_are_counted_by_call(self, http: httpx.AsyncClient, app: Any) -> None:
        before = await scrape(http)
        await create(http, id="a")
        await publish(http, "a", "log", {"message": "m"})
        await http.get(OPS)
        told = await scrape(http)
        for call in ("create", "publish", "command", "pipeline"):
            counts = [it("redis_call_seconds_count", call=call) for it in (before, told)]
            assert counts[1] > counts[0], call
        assert told("redis_call_seconds_sum", call="publish") > 0
        assert told("redis_connections_total") >= 2, "one for commands, one for the feeds"

    async def test_that_fail_are_counted_and_so_are_new_connections(
        self, http: httpx.AsyncClient, app: Any, store: Store
    ) -> None:
        before = await scrape(http)
        async with aioredis.Redis.from_url(str(store.settings.redis_url.get_secret_value())) as admin:  # type: ignore[union-attr]
            await admin.client_kill_filter(_type="normal", skipme=True)
        await http.get(OPS)
        await eventually(lambda: _is(http, 1, "feed_connected"), "it is back")
        await http.get(OPS)
        with pytest.raises(redis.exceptions.ResponseError):
            await store.connections.commands.execute_command("NONSENSE")
        told = await scrape(http)
        assert told("redis_connections_total") > before("redis_connections_total")
        assert (
            told("redis_call_failures_total", call="command") == before("redis_call_failures_total", call="command") + 1
        )


async def test_what_the_reaper_did(http: httpx.AsyncClient, store: Store) -> None:
    reaper = Reaper(store)
    reaper.stalled, reaper.lost = 3, 2
    registry = registry_for(store, reaper)
    assert registry.get_sample_value("progress_broker_leases_expired_total", {"step": "stalled"}) == 3
    assert registry.get_sample_value("progress_broker_leases_expired_total", {"step": "lost"}) == 2


async def test_the_age_of_what_the_feed_brings(store: Store) -> None:
    hub = Hub(store, store.settings)
    await hub.dispatch(Batch([Event(b"a", b"1000-0", 1, b"log", b"{}")]))
    assert hub.lag_s > 1e6
    await hub.dispatch(Batch([Event(b"a", b"99999999999999-0", 2, b"log", b"{}")]))
    assert hub.lag_s == 0, "a clock of Redis that is ahead makes no negative age"


async def test_one_of_many_processes_says_which_it_is(store: Store) -> None:
    for processes, expected in ((1, set()), (2, {str(os.getpid())})):
        registry = registry_for(store, Reaper(store), processes)
        assert {it.labels["pid"] for m in registry.collect() for it in m.samples if "pid" in it.labels} == expected
        assert registry.get_sample_value("process_open_fds", {"pid": next(iter(expected))} if expected else {})


async def test_apps_of_one_process_count_for_themselves(store: Store) -> None:
    apps = [create_app(store.settings, store) for _ in range(2)]
    async with apps[0].router.lifespan_context(apps[0]), apps[1].router.lifespan_context(apps[1]):
        apps[0].state.context.hub.tally.events += 7
        seen = [app.state.context.metrics.get_sample_value("progress_broker_events_total") for app in apps]
    assert seen == [7, 0]


@pytest.mark.parametrize("outlet", ["adopted", "asgi"])
async def test_bytes_are_those_that_were_written(http: httpx.AsyncClient, app: Any, outlet: str) -> None:
    await create(http, id="a")
    await finish(http, "a")
    written = app.state.context.hub.tally.written[outlet]
    for headers in ({"Accept-Encoding": "identity"}, {"Accept-Encoding": "gzip"}):
        before = written.bytes
        async with http.stream("GET", f"{OPS}/a/stream", headers=headers) as answer:
            sent = sum([len(some) async for some in answer.aiter_raw()])
        assert sent > 300
        assert abs(sent - (written.bytes - before)) < 60, "all but gzip's and HTTP's own framing"


def test_a_histogram_counts_what_is_not_above_a_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.cumulated() == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]
    assert histogram.sum == 12
