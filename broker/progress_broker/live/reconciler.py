"""Silence: operations that say nothing are asked after, so that an event which got lost, or an end, hangs nobody."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.live.channel import Channel
from progress_broker.live.channels import Channels
from progress_broker.operations import event_log
from progress_broker.operations.event_log import UNREADABLE, Stand
from progress_broker.operations.store import Store

_SWEEPS_APART = 8  # an operation long silent is asked after every so many sweeps
_ASKED_AT_ONCE = 500  # operations in one pipeline


class Silence:
    """Compares channels with where their operations stand."""

    def __init__(self, store: Store, channels: Channels, sweep_s: float, clock: Callable[[], float]) -> None:
        self._store, self._channels = store, channels
        self._sweep_s, self._clock = sweep_s, clock

    async def watch(self) -> None:
        """Ask after operations that are silent, for ever."""
        while True:
            await asyncio.sleep(self._sweep_s)
            now = self._clock()
            silent = [channel for channel in self._channels if channel.loaded and self._suspect(channel, now)]
            for channel in silent:
                channel.asked_at = now
            with suppress(StorageUnavailable, StorageFull):
                await self.compare(silent)

    async def compare(self, channels: Iterable[Channel]) -> None:
        """Read again the logs of those channels that do not stand where their operation does."""
        left = iter(channels)
        while some := tuple(islice(left, _ASKED_AT_ONCE)):
            await self._compare(some)

    def _suspect(self, channel: Channel, now: float) -> bool:
        """Whether to ask after a channel: when it falls silent, and whenever its silence has doubled, up to a bound."""
        silent_s = now - channel.heard_at
        asked_s = channel.asked_at - channel.heard_at  # how long it had been silent then
        apart_s = _SWEEPS_APART * self._sweep_s
        return silent_s >= (self._sweep_s if asked_s <= 0 else min(2 * asked_s, asked_s + apart_s))

    async def _compare(self, channels: Sequence[Channel]) -> None:
        before = [channel.n for channel in channels]
        stands = await event_log.stands(self._store, [channel.operation for channel in channels])
        for channel, n, stand in zip(channels, before, stands, strict=True):
            if stand is UNREADABLE:
                continue
            if stand is None:
                channel.gone()
            elif _apart(channel, n, stand):
                channel.reload()


def _apart(channel: Channel, n_before: int, stand: Stand) -> bool:
    """Whether a channel, which had so many events when storage was asked, has others than that, more or fewer."""
    if stand.n > channel.n:
        return True
    if stand.n < channel.n:
        return channel.n == n_before  # else it has come on since
    # As many may have come since as were lost.
    return channel.n > 0 and stand.position != channel.position
