"""Tracing: with OpenTelemetry, an operation is a span, and its events carry the trace context on to their delivery."""

from contextlib import suppress
from typing import Any

from progress_broker.model.entry import NewEvent
from progress_broker.runtime import tracing

with suppress(ImportError):  # without OpenTelemetry, `progress_broker.runtime.tracing` is never on
    from opentelemetry import context, trace


class NoTrace:
    """The span of an operation without a sampled trace."""

    traceparent = ""

    def enter(self) -> None:
        """Do nothing."""

    leave = enter

    def end(self, outcome: NewEvent | None) -> None:
        """Do nothing."""


class Trace(NoTrace):
    """An operation's span. Inside the operation's block it is the current span: the work's spans are its children."""

    def __init__(self, span: Any) -> None:
        self.traceparent = tracing.traceparent_of(span)
        self._span = span
        self._before: list[Any] = []

    def enter(self) -> None:
        """Make it the current span."""
        self._before.append(context.get_current())
        context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        """Make the previous span the current one again."""
        if self._before:  # a token would not work: a block may be left in another context than it was entered in
            context.attach(self._before.pop())

    def end(self, outcome: NewEvent | None) -> None:
        """End the span, once, with the operation's outcome. Without an outcome, another process continues the work."""
        if not self._span.is_recording():
            return
        if outcome is not None:
            self._span.set_attribute("progress.status", outcome.status)
            if outcome.status == "failed":
                self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


NO_TRACE = NoTrace()


def begin(operation: str, kind: str = "", traceparent: str = "") -> NoTrace:
    """Return the span of an operation that starts now: in the current trace, or else in the given one."""
    if not tracing.is_on():
        return NO_TRACE
    within = trace.get_current_span().get_span_context().is_valid or not traceparent
    span = tracing.tracer().start_span(
        "progress operation",
        None if within else tracing.parent({"traceparent": traceparent}),
        attributes={"progress.operation": operation} | ({"progress.kind": kind} if kind else {}),
    )
    return Trace(span) if span.is_recording() else NO_TRACE
