"""Catching up, traced: a span of what a client was sent from the log, within the request that opened its stream.

The log holds no traces, so it leads to none of those in which its events were published.
"""

import time
from collections.abc import Sequence
from typing import Any

from progress_broker.runtime import tracing
from progress_broker.stream.frames import Frame
from progress_broker.stream.subscription import Source, Subscription


class TracedSource:
    """Stands between a subscription and its channel, and tells a span of each time it catches up with any event."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._within = tracing.here()
        self._began: int | None = time.time_ns()
        """Since when it has been behind, in ns since 1970; None while it is live."""
        self._after: int | None = None
        self._events = 0

    @property
    def operation(self) -> str:
        """Whose events they are."""
        return self._source.operation

    @property
    def n(self) -> int:
        """The number of the last event handed on."""
        return self._source.n

    @property
    def position(self) -> bytes:
        """The position of that event."""
        return self._source.position

    @property
    def loaded(self) -> bool:
        """Whether the recent frames are known."""
        return self._source.loaded

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th."""
        self.begins(n)
        return self._source.after(n)

    def begins(self, n: int) -> None:
        """Count what comes after the n-th, unless that has begun."""
        if self._after is None:
            self._after = n

    def read_page(self, subscription: Subscription) -> None:
        """Read older frames."""
        self._source.read_page(subscription)

    def read_snapshot(self, subscription: Subscription, reset: str | None) -> None:
        """Read the operation: what follows begins with it."""
        self._count(subscription)
        self._source.read_snapshot(subscription, reset)

    def wake(self, subscription: Subscription) -> None:
        """Call `pump` when there is another frame."""
        self._source.wake(subscription)

    def join(self, subscription: Subscription) -> None:
        """Be live: it has caught up."""
        self._told(subscription)
        self._source.join(subscription)

    def part(self, subscription: Subscription) -> None:
        """Fall back."""
        self._began = time.time_ns()
        self._source.part(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Forget the subscription."""
        self._told(subscription)
        self._source.leave(subscription)

    def _count(self, subscription: Subscription) -> None:
        if self._after is not None:
            self._events += subscription.n - self._after
            self._after = None

    def _told(self, subscription: Subscription) -> None:
        if self._began is None:
            return
        self._count(subscription)
        began, events = self._began, self._events
        self._began, self._events = None, 0
        if events > 0:
            told: dict[str, Any] = {
                "progress.operation": self.operation,
                "progress.connection": subscription.connection,
                "progress.events": events,
                "progress.n": subscription.n,
            }
            span = tracing.tracer().start_span("catch up", self._within, start_time=began)
            span.set_attributes(told)
            span.end()


def placed(source: Source, n: int) -> None:
    """Tell a source that its subscription stands after the n-th event, which is the first it may be sent."""
    if isinstance(source, TracedSource):
        source.begins(n)


def traced(source: Source) -> Source:
    """Return a source whose subscription is traced, if spans go anywhere: else that itself, which costs nothing."""
    return TracedSource(source) if tracing.is_on() else source
