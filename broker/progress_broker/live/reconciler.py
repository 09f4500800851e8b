"""Checks silent operations against Redis, so that no client waits forever for an event or an `end` that got lost."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.history import event_log
from progress_broker.history.event_log import UNREADABLE
from progress_broker.live.channel import Channel
from progress_broker.live.channels import Channels
from progress_broker.model.event import LastEvent
from progress_broker.operations.store import Store
from progress_broker.storage.lanes import lanes_by_node

_MAX_SWEEPS_BETWEEN = 8  # an operation that has been silent for long is checked only every eighth sweep
_PER_PIPELINE = 500  # operations per pipeline
_TRIES = 3  # how often an operation is asked for if the answers come too late; then its next check is awaited


class Reconciler:
    """Compares the positions of channels with those of their operations in Redis."""

    def __init__(self, store: Store, channels: Channels, sweep_interval_s: float, clock: Callable[[], float]) -> None:
        self._store, self._channels = store, channels
        self._sweep_interval_s, self._clock = sweep_interval_s, clock

    async def run(self) -> None:
        """Compare silent operations with Redis, at increasing intervals, and reload those that differ.

        This runs until it is cancelled. While a server of Redis is unavailable, the checks in its lanes are skipped.
        """
        while True:
            await asyncio.sleep(self._sweep_interval_s)
            now = self._clock()
            silent = [channel for channel in self._channels if channel.loaded and self._is_due(channel, now)]
            for channel in silent:
                channel.checked_at = now
            await asyncio.gather(*map(self._compare_if_possible, self._by_node(silent)))

    async def compare(self, channels: Iterable[Channel]) -> None:
        """Reload the channels whose last event differs from the one in Redis; close those of deleted operations."""
        remaining = iter(channels)
        while group := tuple(islice(remaining, _PER_PIPELINE)):
            for _ in range(_TRIES):
                group = await self._compare(group) if group else ()

    async def _compare_if_possible(self, channels: Sequence[Channel]) -> None:
        with suppress(StorageUnavailable, StorageFull):
            await self.compare(channels)

    def _by_node(self, channels: Sequence[Channel]) -> list[Sequence[Channel]]:
        """Divide channels by the server that has their operations."""
        keyspace = self._store.keyspace
        nodes = lanes_by_node(self._store.connections, keyspace)
        if len(nodes) == 1:
            return [channels]
        groups: list[list[Channel]] = [[] for _ in nodes]
        node_of = {lane: group for lanes, group in zip(nodes, groups, strict=True) for lane in lanes}
        for channel in channels:
            node_of[keyspace.lane_of(channel.operation)].append(channel)
        return [group for group in groups if group]

    def _is_due(self, channel: Channel, now: float) -> bool:
        """Whether to check a channel: after one sweep of silence, then at doubling intervals, up to a maximum."""
        silent_s = now - channel.last_event_at
        checked_s = channel.checked_at - channel.last_event_at  # how long it had been silent at the last check
        max_between_s = _MAX_SWEEPS_BETWEEN * self._sweep_interval_s
        return silent_s >= (self._sweep_interval_s if checked_s <= 0 else min(2 * checked_s, checked_s + max_between_s))

    async def _compare(self, channels: Sequence[Channel]) -> tuple[Channel, ...]:
        """Compare channels; return those for which the answer came too late."""
        before = [channel.standing for channel in channels]
        last_events = await event_log.last_events(self._store, [channel.operation for channel in channels])
        again = []
        for channel, standing, last_event in zip(channels, before, last_events, strict=True):
            if last_event is UNREADABLE:
                continue
            if last_event is not None:
                if _differs(channel, standing[0], last_event):
                    channel.reload()
            elif channel.standing == standing:
                channel.gone()
            else:  # a new operation may have its id since
                again.append(channel)
        return tuple(again)


def _differs(channel: Channel, n_before: int, last_event: LastEvent) -> bool:
    """Whether a channel's events differ from those in Redis. It had `n_before` events when Redis was asked."""
    if last_event.n > channel.n:
        return True
    if last_event.n < channel.n:
        return channel.n == n_before  # otherwise it has received events since
    # The numbers are equal, but as many events may have been published since as were lost.
    return channel.n > 0 and last_event.position != channel.position
