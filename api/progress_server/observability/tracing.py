"""Tracing at the edge: a request is a span up to the first word of its answer. No query of a URL comes into it."""

from contextlib import suppress
from typing import Any

from starlette.types import Scope

from progress_broker.runtime import tracing

with suppress(ImportError):  # without it `progress_broker.runtime.tracing` is never on
    from opentelemetry import context, trace

_UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})


class RequestSpan:
    """A request's span, which is the current one while it is handled."""

    __slots__ = ("_span", "_token")

    def __init__(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        within = tracing.parent(headers)
        self._span: Any = tracing.tracer().start_span(
            scope.get("method", "GET"), within, trace.SpanKind.SERVER, {"url.path": scope["path"]}
        )
        self._token = context.attach(trace.set_span_in_context(self._span, within))

    def answered(self, method: str, route: str, status: int, connection: str) -> None:
        """End it."""
        span = self._span
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if connection:
            span.set_attribute("progress.connection", connection)
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end()

    def left(self) -> None:
        """Be the current one no more."""
        context.detach(self._token)


def span_of(scope: Scope) -> RequestSpan | None:
    """Return a request's span, but of one that only asks how we are."""
    return None if scope["path"] in _UNTRACED else RequestSpan(scope)
