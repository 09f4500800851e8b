"""Request tracing: one span per request, which ends when the response begins.

Query strings are never recorded: they may hold tickets.
"""

from contextlib import suppress
from typing import Any

from starlette.types import Scope

from progress_broker.runtime import tracing

with suppress(ImportError):  # without OpenTelemetry, `progress_broker.runtime.tracing` is always off
    from opentelemetry import context, trace

_UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})


class RequestSpan:
    """The span of a request. It is the current span while the request is handled."""

    __slots__ = ("_span", "_token")

    def __init__(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        within = tracing.parent(headers)
        self._span: Any = tracing.tracer().start_span(
            scope.get("method", "GET"), within, trace.SpanKind.SERVER, {"url.path": scope["path"]}
        )
        self._token = context.attach(trace.set_span_in_context(self._span, within))

    def answered(self, method: str, route: str, status: int, connection: str) -> None:
        """End the span: the response has begun."""
        span = self._span
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if connection:
            span.set_attribute("progress.connection", connection)
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end()

    def left(self) -> None:
        """Restore the previous context: the request has been handled."""
        context.detach(self._token)


def span_of(scope: Scope) -> RequestSpan | None:
    """Return a span for a request; None for health checks and scrapes."""
    return None if scope["path"] in _UNTRACED else RequestSpan(scope)
