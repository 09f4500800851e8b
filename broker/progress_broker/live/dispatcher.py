"""Distributes each batch of the feed: to families, to bundles that wait for new operations, and to channels."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from progress_broker.live.channel import Channel
from progress_broker.live.channels import Channels
from progress_broker.live.families import Families
from progress_broker.model.event import GONE, IMPORTED, Event, age_s
from progress_broker.runtime import tracing
from progress_broker.runtime.tally import Tally

_DELIVERIES_A_TURN = 500  # then other tasks of the event loop run, and the written data leaves through the sockets


class BundleListener(Protocol):
    """Receives all events before the channels do."""

    def dispatch(self, events: Sequence[Event]) -> None:
        """Receive the events of one read of the feeds."""


class Dispatcher:
    """Distributes events in the order of the feed."""

    def __init__(
        self, channels: Channels, families: Families, bundles: BundleListener, tally: Tally, clock: Callable[[], float]
    ) -> None:
        self.lag_s = 0.0
        """The age of the last batch's newest event when it was received."""
        self.internal_handlers: dict[bytes, Callable[[Event], None]] = {}
        """Handlers of internal entries, which belong to no operation, by the entry's name."""
        self._channels, self._families, self._bundles = channels, families, bundles
        self._tally, self._clock = tally, clock
        self._deliveries = tracing.deliveries()

    async def dispatch(self, events: Sequence[Event]) -> None:
        """Distribute events."""
        if self._families:  # before a parent's `end`, so that its last frame has the final state of its children
            self._families.dispatch(events)
        self._bundles.dispatch(events)
        self.lag_s = age_s(events[-1]) if events else self.lag_s
        now, deliveries, sampled = self._clock(), 0, False
        new_events, gone = self._by_channel(events)
        for channel, deleted_at in gone.items():  # before the events of a new operation with the same id
            channel.accept(new_events.pop(channel, ()))
            channel.gone(deleted_at)
        for channel, of_channel in new_events.items():
            n, watching = channel.n, len(channel.subscriptions)  # counted first, because an `end` closes them
            channel.accept(of_channel)
            if not sampled and channel.loaded:  # one latency sample per batch, so that other events cost nothing
                sampled = True
                self._tally.latency_s.observe(age_s(of_channel[0]))
            if self._deliveries is not None:
                self._deliveries.delivered(of_channel, watching)
            if channel.n > n:  # only an event that was delivered proves that the channel is up to date
                channel.last_event_at = now
            self._tally.events += len(of_channel)
            self._tally.deliveries += len(of_channel) * watching
            deliveries += watching
            if deliveries >= _DELIVERIES_A_TURN:
                deliveries = 0
                await asyncio.sleep(0)

    def _by_channel(self, events: Sequence[Event]) -> tuple[dict[Channel, list[Event]], dict[Channel, bytes]]:
        """Return events by channel, for one write each; and the channels of deleted operations, with its position."""
        new_events: dict[Channel, list[Event]] = {}
        gone: dict[Channel, bytes] = {}
        for event in events:
            channel = self._channels.get(event.operation)
            if channel is None:
                if (handler := self.internal_handlers.get(event.operation)) is not None:
                    handler(event)
                continue
            if event.n:
                if channel in new_events:
                    new_events[channel].append(event)
                else:
                    new_events[channel] = [event]
            elif event.type == GONE:
                gone[channel] = event.position
            elif event.type == IMPORTED:
                channel.reload()
        return new_events, gone
