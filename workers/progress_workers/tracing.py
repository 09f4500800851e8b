"""Tracing: an operation is a span, where OpenTelemetry is set up, and what it publishes carries it to its delivery."""

from contextlib import suppress
from typing import Any

from progress_broker.model.entry import Entry
from progress_broker.runtime import tracing

with suppress(ImportError):  # without it `progress_broker.runtime.tracing` is never on
    from opentelemetry import context, trace


class NoTrace:
    """The span of an operation that is in no sampled trace."""

    traceparent = ""

    def enter(self) -> None:
        """Do nothing."""

    leave = enter

    def end(self, outcome: Entry | None) -> None:
        """Do nothing."""


class Trace(NoTrace):
    """An operation's span. It is the current one in the operation's block, so what the work does is a part of it."""

    def __init__(self, span: Any) -> None:
        self.traceparent = tracing.traceparent_of(span)
        self._span = span
        self._before: list[Any] = []

    def enter(self) -> None:
        """Make it the current span."""
        self._before.append(context.get_current())
        context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        """Make the one before the current span again."""
        if self._before:  # not by its token, which is of no use where a block is left elsewhere than it was entered
            context.attach(self._before.pop())

    def end(self, outcome: Entry | None) -> None:
        """End it, once, as the operation did; without an outcome others go on with it, or have taken it away."""
        if not self._span.is_recording():
            return
        if outcome is not None:
            self._span.set_attribute("progress.status", outcome.status)
            if outcome.status == "failed":
                self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


NO_TRACE = NoTrace()


def begin(operation: str, kind: str = "", traceparent: str = "") -> NoTrace:
    """Return the span of an operation that is worked on from now on: in the current trace, else in the one given."""
    if not tracing.is_on():
        return NO_TRACE
    within = trace.get_current_span().get_span_context().is_valid or not traceparent
    span = tracing.tracer().start_span(
        "progress operation",
        None if within else tracing.parent({"traceparent": traceparent}),
        attributes={"progress.operation": operation} | ({"progress.kind": kind} if kind else {}),
    )
    return Trace(span) if span.is_recording() else NO_TRACE
