"""From a feed's batch to whom it concerns: families, those who look out for new operations, and channels."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from progress_broker.live.channel import Channel
from progress_broker.live.channels import Channels
from progress_broker.live.families import Families
from progress_broker.model.event import GONE, Event, age_s
from progress_broker.runtime import tracing
from progress_broker.runtime.tally import Tally

_DELIVERIES_A_TURN = 500  # of one batch, before the rest of the loop gets a chance; so does what they wrote to sockets


class Listener(Protocol):
    """Who hears all events before the channels do."""

    def hear(self, events: Sequence[Event]) -> None:
        """Take what a read of the feeds brought."""


class Dispatcher:
    """Hands each event on, in the order of the feed."""

    def __init__(
        self, channels: Channels, families: Families, bundles: Listener, tally: Tally, clock: Callable[[], float]
    ) -> None:
        self.lag_s = 0.0
        """How old the newest event of the last batch was when it came."""
        self.notes: dict[bytes, Callable[[Event], None]] = {}
        """Who hears entries of no operation, by what those go by."""
        self._channels, self._families, self._bundles = channels, families, bundles
        self._tally, self._clock = tally, clock
        self._deliveries = tracing.deliveries()

    async def dispatch(self, events: Sequence[Event]) -> None:
        """Hand events to whom they concern."""
        if self._families:  # before the end of a parent is, so that its last frame tells what its children did
            self._families.hear(events)
        self._bundles.hear(events)
        if events:
            self.lag_s = age_s(events[-1])
        now, deliveries, told = self._clock(), 0, False
        news, gone = self._by_channel(events)
        for channel, deleted_at in gone.items():  # now, before one that was made anew since then is followed
            channel.accept(news.pop(channel, ()))
            channel.gone(deleted_at)
        for channel, theirs in news.items():
            n, watching = channel.n, len(channel.subscriptions)  # as an end leaves none
            channel.accept(theirs)
            if not told and channel.loaded:  # one sample a batch: what all others pay is nothing
                told = True
                self._tally.latency_s.observe(age_s(theirs[0]))
            if self._deliveries is not None:
                self._deliveries.told(theirs, watching)
            if channel.n > n:  # only what led on is a sign of health
                channel.heard_at = now
            self._tally.events += len(theirs)
            self._tally.deliveries += len(theirs) * watching
            deliveries += watching
            if deliveries >= _DELIVERIES_A_TURN:
                deliveries = 0
                await asyncio.sleep(0)

    def _by_channel(self, events: Sequence[Event]) -> tuple[dict[Channel, list[Event]], dict[Channel, bytes]]:
        """Return the events of each watched operation together, as what came at once leaves in one write; and the
        channels of those that are told to be gone, with the position of that."""
        news: dict[Channel, list[Event]] = {}
        gone: dict[Channel, bytes] = {}
        for event in events:
            channel = self._channels.get(event.operation)
            if channel is None:
                if (hear := self.notes.get(event.operation)) is not None:
                    hear(event)
                continue
            if event.n:
                if channel in news:
                    news[channel].append(event)
                else:
                    news[channel] = [event]
            elif event.type == GONE:
                gone[channel] = event.position
        return news, gone
