"""Tracing: what is published in a sampled OpenTelemetry trace carries its `traceparent` (W3C) to where it is delivered.

Without the package, or where nobody set it up, nothing is carried and nothing is told.
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
except ImportError:  # pragma: no cover - it comes with FastAPI, and workers may be without
    trace = None  # type: ignore[assignment]

_SAMPLED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")


def is_on() -> bool:
    """Whether spans go anywhere: someone has set up OpenTelemetry in this process."""
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def tracer() -> Any:
    """Return what makes our spans."""
    return trace.get_tracer("progress-broker")


def current() -> str:
    """Return the `traceparent` of the span that this code runs in, if it is sampled, else ""."""
    return "" if trace is None else traceparent_of(trace.get_current_span())


def traceparent_of(span: Any) -> str:
    """Return a span's `traceparent`, if it is sampled, else ""."""
    its = span.get_span_context()
    if not its.trace_flags.sampled:
        return ""
    return f"00-{its.trace_id:032x}-{its.span_id:016x}-{its.trace_flags:02x}"


def parent(headers: Mapping[str, str]) -> Any:
    """Return the context of a span elsewhere, by `traceparent` and `tracestate`; of none if they say nothing."""
    return TraceContextTextMapPropagator().extract(headers)


def here() -> Any:
    """Return the context that this code runs in, for spans that come later."""
    return context.get_current()


class Deliveries:
    """Tells a span of each batch that was published in a sampled trace: from its publish to its write, to all here."""

    def __init__(self) -> None:
        self._tracer = tracer()

    def told(self, events: Sequence[Event], streams: int) -> None:
        """Tell of events that were written to so many streams."""
        for event in events:
            if event.traceparent and streams:
                self._told(event, event.traceparent.decode("latin-1"), streams)

    def _told(self, event: Event, traceparent: str, streams: int) -> None:
        if _SAMPLED.fullmatch(traceparent) is None:  # a foreign hand wrote it
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


def deliveries() -> Deliveries | None:
    """Return who tells of deliveries, if spans go anywhere."""
    return Deliveries() if is_on() else None
