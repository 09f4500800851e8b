"""Tracing of catching up: a span in the request that opened the stream, for the events sent from the log.

The log stores no trace context, so the span has no link to the traces in which the events were published.
"""

import time
from collections.abc import Sequence
from typing import Any

from progress_broker.runtime import tracing
from progress_broker.stream.frame_source import FrameSource
from progress_broker.stream.frames import Frame
from progress_broker.stream.subscription import Subscription


class TracedFrameSource:
    """Wraps a subscription's channel, and records a span each time the subscription catches up with any event."""

    def __init__(self, source: FrameSource[Subscription]) -> None:
        self._source = source
        self._within = tracing.current_connection()
        self._began: int | None = time.time_ns()
        """When it started to catch up, in ns since 1970; None while it is live."""
        self._after: int | None = None
        self._events = 0

    @property
    def operation(self) -> str:
        """The operation's id."""
        return self._source.operation

    @property
    def n(self) -> int:
        """The number of the last delivered event."""
        return self._source.n

    @property
    def position(self) -> bytes:
        """The position of that event."""
        return self._source.position

    @property
    def percent(self) -> float | None:
        """The last percentage of the operation that is in memory."""
        return self._source.percent

    @property
    def bookmark_every(self) -> int:
        """After how many events a client that wants few types is told its new position."""
        return self._source.bookmark_every

    @property
    def loaded(self) -> bool:
        """Whether the recent frames are loaded."""
        return self._source.loaded

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th."""
        self.begins(n)
        return self._source.after(n)

    def begins(self, n: int) -> None:
        """Start to count the events after the n-th, unless counting has started."""
        if self._after is None:
            self._after = n

    def read_page(self, subscription: Subscription) -> None:
        """Read frames from Redis."""
        self._source.read_page(subscription)

    def read_snapshot(self, subscription: Subscription, reset: str | None) -> None:
        """Read the operation's snapshot. Events that it skips are not counted."""
        self._count(subscription)
        self._source.read_snapshot(subscription, reset)

    def wake(self, subscription: Subscription) -> None:
        """Call `pump` when there is a new frame."""
        self._source.wake(subscription)

    def join(self, subscription: Subscription) -> None:
        """End the span, as it has caught up, and go live."""
        self._end_span(subscription)
        self._source.join(subscription)

    def part(self, subscription: Subscription) -> None:
        """Stop being live, and start to measure the time."""
        self._began = time.time_ns()
        self._source.part(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Forget the subscription."""
        self._end_span(subscription)
        self._source.leave(subscription)

    def _count(self, subscription: Subscription) -> None:
        if self._after is not None:
            self._events += subscription.n - self._after
            self._after = None

    def _end_span(self, subscription: Subscription) -> None:
        if self._began is None:
            return
        self._count(subscription)
        began, events = self._began, self._events
        self._began, self._events = None, 0
        if events > 0:
            attributes: dict[str, Any] = {
                "progress.operation": self.operation,
                "progress.connection": subscription.connection,
                "progress.events": events,
                "progress.n": subscription.n,
            }
            span = tracing.tracer().start_span("catch up", self._within, start_time=began)
            span.set_attributes(attributes)
            span.end()


def start_tracing_after(source: FrameSource[Subscription], n: int) -> None:
    """Notify a traced source that its subscription starts after the n-th event."""
    if isinstance(source, TracedFrameSource):
        source.begins(n)
