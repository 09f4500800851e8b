"""Traces, as an OpenTelemetry SDK collects them: from the worker's call to the delivery."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from websockets.asyncio.client import connect

from progress_broker.history import event_log
from progress_broker.model.event import Event
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.runtime import tracing
from progress_workers import AsyncOperation, Operation
from tests.api.test_operations import OPS, create, finish, publish
from tests.api.test_stream import until
from tests.servers import eventually

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SAMPLED = f"00-{TRACE_ID:032x}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE_ID:032x}-00f067aa0ba902b7-00"


class Spans:
    """The exported spans."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def __call__(self, name: str) -> Sequence[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    @property
    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self._exporter.get_finished_spans() if span.context}


def sdk(monkeypatch: pytest.MonkeyPatch, sampler: Sampler | None = None) -> Spans:
    """Set up OpenTelemetry for one test. Its API allows that only once per process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    return Spans(exporter)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    return sdk(monkeypatch)


def links(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    assert span.parent is not None
    return span.context.trace_id, span.parent.span_id


async def test_one_trace_from_a_workers_caller_to_delivery(spans: Spans, http: httpx.AsyncClient, store: Store) -> None:
    with trace.get_tracer("test").start_as_current_span("the job") as job:
        async with (
            AsyncOperation.start("import", id="a", settings=store.settings) as op,
            http.stream("GET", f"{OPS}/a/stream") as answer,
        ):
            stream = answer.aiter_bytes()
            await until(stream, b"snapshot")
            op.log("half way")
            await until(stream, b"half way")
            with trace.get_tracer("test").start_as_current_span("a part"):
                pass
            op.succeed()
            await until(stream, b"event: end")
    await eventually(lambda: len(spans("deliver")) >= 2, "the deliveries are told")
    job_context = job.get_span_context()
    [operation] = spans("progress operation")
    assert links(operation) == (job_context.trace_id, job_context.span_id)
    assert operation.attributes is not None
    assert operation.attributes["progress.status"] == "succeeded"
    assert operation.context is not None
    [part] = spans("a part")
    for span in (part, *spans("deliver")):
        assert links(span) == (job_context.trace_id, operation.context.span_id)
    told = [dict(span.attributes or {}) for span in spans("deliver")]
    assert {"progress.operation": "a", "progress.type": "log", "progress.n": 3, "progress.streams": 1} in told
    assert all(span.start_time <= span.end_time for span in spans("deliver"))  # type: ignore[operator]


async def test_what_is_published_over_http_goes_on_from_its_caller(spans: Spans, http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream") as answer:
        stream = answer.aiter_bytes()
        await until(stream, b"snapshot")
        body = [{"type": "log", "data": {"message": str(number)}} for number in range(3)]
        await http.post(f"{OPS}/a/events", json=body, headers={"traceparent": SAMPLED})
        await until(stream, b'"message":"2"')
    await eventually(lambda: spans("deliver"), "it is told")
    [posted] = spans(f"POST {OPS}/{{id}}/events")
    assert links(posted) == (TRACE_ID, 0x00F067AA0BA902B7)
    mine = [span for span in spans("deliver") if span.context and span.context.trace_id == TRACE_ID]
    assert len(mine) == 1, "one for all that was published at once"
    assert posted.context is not None
    assert links(mine[0]) == (TRACE_ID, posted.context.span_id)
    [opened] = spans(f"GET {OPS}/{{id}}/stream")
    assert (opened.attributes or {})["progress.connection"] == answer.headers["progress-connection"]


async def test_what_is_not_sampled_is_neither_told_nor_carried(
    spans: Spans, http: httpx.AsyncClient, store: Store
) -> None:
    await create(http, id="a")
    before = len(spans("deliver"))
    async with http.stream("GET", f"{OPS}/a/stream") as answer:
        stream = answer.aiter_bytes()
        await until(stream, b"snapshot")
        headers = {"traceparent": UNSAMPLED}
        body = {"type": "log", "data": {"message": "quiet"}}
        await http.post(f"{OPS}/a/events", json=body, headers=headers)
        await until(stream, b"quiet")
    assert TRACE_ID not in spans.traces
    assert len(spans("deliver")) == before
    feed = store.keyspace.operation("a").lane.feed
    [(_, fields)] = await store.connections.commands.xrevrange(feed, count=1)
    assert b"tp" not in fields


async def test_an_operation_begun_elsewhere_goes_on_in_the_trace_it_was_created_in(
    spans: Spans, http: httpx.AsyncClient, store: Store
) -> None:
    await http.post(OPS, json={"id": "a"}, headers={"traceparent": SAMPLED})

    def work() -> None:
        with Operation.attach("a", settings=store.settings):
            pass

    await asyncio.to_thread(work)
    [operation] = spans("progress operation")
    [created] = spans(f"POST {OPS}")
    assert created.context is not None
    assert links(operation) == (TRACE_ID, created.context.span_id)


async def test_how_it_was_created_is_no_part_of_what_it_is(spans: Spans, http: httpx.AsyncClient) -> None:
    for parent in (SAMPLED, SAMPLED.replace("4bf9", "5bf9")):
        assert (await http.post(OPS, json={"id": "a"}, headers={"traceparent": parent})).status_code == 201


async def test_one_that_fails_is_an_error(spans: Spans, store: Store) -> None:
    def work() -> None:
        with pytest.raises(ZeroDivisionError), Operation.start("a", settings=store.settings):
            raise ZeroDivisionError

    await asyncio.to_thread(work)
    [operation] = spans("progress operation")
    assert operation.status.status_code is trace.StatusCode.ERROR


async def test_no_query_comes_into_a_span(spans: Spans, http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    await finish(http, "a")
    await http.get(f"{OPS}/a/stream?ticket=s3cret")
    await http.get(f"{OPS}/a?access_token=s3cret")
    assert len(spans(f"GET {OPS}/{{id}}")) == 1
    told = [span for name in (f"GET {OPS}/{{id}}/stream", f"GET {OPS}/{{id}}") for span in spans(name)]
    assert "s3cret" not in "".join(span.to_json() for span in told)
    assert len(told) == 2


@pytest.mark.parametrize("path", ["stream", "ws"])
async def test_what_is_caught_up_is_told_once_within_the_request(
    spans: Spans, http: httpx.AsyncClient, base_url: str, path: str
) -> None:
    made = await create(http, id="a")
    for number in range(250):
        await http.post(f"{OPS}/a/events", json={"type": "log", "data": {"message": f"<{number}>"}})
    url, headers = f"{OPS}/a/{path}", {"traceparent": SAMPLED, "Last-Event-ID": made["position"]}
    if path == "stream":
        async with http.stream("GET", url, headers=headers) as answer:
            name = answer.headers["Progress-Connection"]
            stream = answer.aiter_bytes()
            await until(stream, b"<249>")
            await publish(http, "a", "log", {"message": "live"})
            await until(stream, b"live")
    else:
        async with connect(base_url.replace("http", "ws") + url, additional_headers=headers) as socket:
            assert socket.response is not None
            name = socket.response.headers["Progress-Connection"]
            while "<249>" not in str(await socket.recv()):
                pass
    await eventually(lambda: spans("catch up"), "it is told")
    [caught_up], [asked] = spans("catch up"), spans(f"GET {OPS}/{{id}}/{path}")
    assert asked.context is not None
    assert links(caught_up) == (TRACE_ID, asked.context.span_id)
    assert caught_up.attributes == {
        "progress.operation": "a", "progress.connection": name, "progress.events": 250, "progress.n": 251
    }  # fmt: skip


async def test_who_has_nothing_to_catch_up_with_is_no_span(spans: Spans, http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream") as answer:
        stream = answer.aiter_bytes()
        await until(stream, b"snapshot")
        await finish(http, "a")
        await until(stream, b"event: end")
    assert spans(f"GET {OPS}/{{id}}/stream")
    assert not spans("catch up")


async def test_a_snapshot_is_no_event_that_was_caught_up(spans: Spans, http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    await publish(http, "a", "log", {"message": "m"})
    await finish(http, "a")
    await http.get(f"{OPS}/a/stream", headers={"Last-Event-ID": "99999999999999-0"})
    await http.get(f"{OPS}/a/stream", params={"from": "start"})
    told = [(span.attributes or {})["progress.events"] for span in spans("catch up")]
    assert told == [3, 3]


async def test_health_is_not_traced(spans: Spans, http: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        await http.get(path)
    assert spans.traces == set()


async def test_a_sampler_that_wants_nothing_costs_nothing_in_the_feed(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    sdk(monkeypatch, ALWAYS_OFF)

    def work() -> None:
        with Operation.start("a", id="a", settings=store.settings) as op:
            op.log("m")

    await asyncio.to_thread(work)
    entries = await store.connections.commands.xrange(store.keyspace.operation("a").lane.feed)
    assert not any(b"tp" in fields for _, fields in entries)


async def test_without_a_set_up_nothing_is_told_or_carried(http: httpx.AsyncClient, store: Store, app: Any) -> None:
    assert not tracing.is_on()
    await http.post(OPS, json={"id": "a"}, headers={"traceparent": SAMPLED})
    await publish(http, "a", "log", {"message": "m"})
    entries = await store.connections.commands.xrange(store.keyspace.operation("a").lane.feed)
    mine = [fields for _, fields in entries if b"a" in fields]
    assert mine
    assert not any(b"tp" in fields for fields in mine)
    assert tracing.deliveries() is None


@pytest.mark.parametrize(
    "foreign", [b"x", b"\xff" * 55, UNSAMPLED.encode(), b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"]
)
async def test_a_traceparent_of_a_foreign_hand_is_passed_over(spans: Spans, foreign: bytes) -> None:
    deliveries = tracing.deliveries()
    assert deliveries is not None
    deliveries.delivered([Event(b"a", b"1000-0", 1, b"log", b"{}", foreign)], 1)
    assert not spans("deliver")
    deliveries.delivered([Event(b"a", b"1000-0", 1, b"log", b"{}", SAMPLED.encode())], 1)
    assert len(spans("deliver")) == 1


async def test_a_log_reads_the_same_with_traces(spans: Spans, store: Store) -> None:
    with trace.get_tracer("test").start_as_current_span("x"):
        await store.create(NewOperation(id="a"))
    assert [event.traceparent for event in await event_log.kept(store, "a", 10)] == [b""]
