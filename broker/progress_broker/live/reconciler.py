"""Checks silent operations against Redis, so that no client waits forever for an event or an `end` that got lost."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.live.channel import Channel
from progress_broker.live.channels import Channels
from progress_broker.operations import event_log
from progress_broker.operations.event_log import UNREADABLE, LastEvent
from progress_broker.operations.store import Store

_SWEEPS_APART = 8  # an operation that has been silent for long is checked only every eighth sweep
_ASKED_AT_ONCE = 500  # operations per pipeline


class Reconciler:
    """Compares the positions of channels with those of their operations in Redis."""

    def __init__(self, store: Store, channels: Channels, sweep_interval_s: float, clock: Callable[[], float]) -> None:
        self._store, self._channels = store, channels
        self._sweep_interval_s, self._clock = sweep_interval_s, clock

    async def run(self) -> None:
        """Check silent operations until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_interval_s)
            now = self._clock()
            silent = [channel for channel in self._channels if channel.loaded and self._suspect(channel, now)]
            for channel in silent:
                channel.asked_at = now
            with suppress(StorageUnavailable, StorageFull):
                await self.compare(silent)

    async def compare(self, channels: Iterable[Channel]) -> None:
        """Reload the channels whose position differs from that of their operation in Redis."""
        left = iter(channels)
        while group := tuple(islice(left, _ASKED_AT_ONCE)):
            await self._compare(group)

    def _suspect(self, channel: Channel, now: float) -> bool:
        """Whether to check a channel: after one sweep of silence, then at doubling intervals, up to a maximum."""
        silent_s = now - channel.heard_at
        asked_s = channel.asked_at - channel.heard_at  # how long it had been silent at the last check
        apart_s = _SWEEPS_APART * self._sweep_interval_s
        return silent_s >= (self._sweep_interval_s if asked_s <= 0 else min(2 * asked_s, asked_s + apart_s))

    async def _compare(self, channels: Sequence[Channel]) -> None:
        before = [channel.n for channel in channels]
        stands = await event_log.last_events(self._store, [channel.operation for channel in channels])
        for channel, n, stand in zip(channels, before, stands, strict=True):
            if stand is UNREADABLE:
                continue
            if stand is None:
                channel.gone()
            elif _differs(channel, n, stand):
                channel.reload()


def _differs(channel: Channel, n_before: int, stand: LastEvent) -> bool:
    """Whether a channel's events differ from those in Redis. It had `n_before` events when Redis was asked."""
    if stand.n > channel.n:
        return True
    if stand.n < channel.n:
        return channel.n == n_before  # otherwise it has received events since
    # The numbers are equal, but as many events may have been published since as were lost.
    return channel.n > 0 and stand.position != channel.position
