"""Tracing: an event that is published in a sampled OpenTelemetry trace carries the `traceparent` (W3C) to its delivery.

If OpenTelemetry is not installed or not set up, nothing is carried and no spans are recorded.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from progress_broker.model.event import Event
from progress_broker.model.position import milliseconds

try:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # pragma: no cover - installed with FastAPI; workers may not have it
    trace = None  # type: ignore[assignment]

_SAMPLED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")


def is_on() -> bool:
    """Whether OpenTelemetry is set up in this process, so that spans are recorded."""
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def tracer() -> Any:
    """Return the tracer for our spans."""
    return trace.get_tracer("progress-broker")


def current() -> str:
    """Return the `traceparent` of the current span if it is sampled, else ""."""
    return "" if trace is None else traceparent_of(trace.get_current_span())


def traceparent_of(span: Any) -> str:
    """Return a span's `traceparent` if it is sampled, else ""."""
    span_context = span.get_span_context()
    if not span_context.trace_flags.sampled:
        return ""
    return f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{span_context.trace_flags:02x}"


def parent(headers: Mapping[str, str]) -> Any:
    """Return the context of a remote span from the headers `traceparent` and `tracestate`; empty without them."""
    return TraceContextTextMapPropagator().extract(headers)


def current_connection() -> Any:
    """Return the current context, to be the parent of later spans."""
    return context.get_current()


class DeliverySpans:
    """Records a span for each event of a sampled trace, from its publish to its write to this replica's streams."""

    def __init__(self) -> None:
        self._tracer = tracer()

    def delivered(self, events: Sequence[Event], streams: int) -> None:
        """Record that events were written to a number of streams."""
        for event in events:
            if event.traceparent and streams:
                self._record(event, event.traceparent.decode("latin-1"), streams)

    def _record(self, event: Event, traceparent: str, streams: int) -> None:
        if _SAMPLED.fullmatch(traceparent) is None:  # another program wrote it
            return
        now = time.time_ns()
        self._tracer.start_span(
            "deliver",
            parent({"traceparent": traceparent}),
            trace.SpanKind.CONSUMER,
            {
                "progress.operation": event.operation.decode(),
                "progress.type": event.type.decode("utf-8", "replace"),
                "progress.n": event.n,
                "progress.streams": streams,
            },
            start_time=min(now, milliseconds(event.position) * 1_000_000),
        ).end(now)


def deliveries() -> DeliverySpans | None:
    """Return the recorder of deliveries if tracing is on, else None."""
    return DeliverySpans() if is_on() else None
