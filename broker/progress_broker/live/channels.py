"""A replica's channels: one for each watched operation. All their rings share one memory budget."""

from collections.abc import Callable, Iterator

from progress_broker.live.channel import Channel
from progress_broker.live.history import Loader, RingLimits


class Channels:
    """Channels by operation. A channel is created for its first subscription."""

    def __init__(self, ring_length: int, ring_bytes: int, clock: Callable[[], float]) -> None:
        self._channels: dict[bytes, Channel] = {}
        self._ring_bytes = self._trimmed_to = ring_bytes
        self._limits = RingLimits(ring_length, ring_bytes)
        self._clock = clock

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[Channel]:
        return iter(tuple(self._channels.values()))

    def get(self, name: bytes) -> Channel | None:
        """Return the channel of a watched operation, or None."""
        return self._channels.get(name)

    def get_or_create(self, operation: str, loader: Loader) -> Channel:
        """Return the channel of an operation. A new channel starts to read the operation's log."""
        channel = self._channels.get(operation.encode())
        if channel is None:
            channel = Channel(operation, loader, self._limits)
            channel.last_event_at = self._clock()
            self._channels[channel.name] = channel
            self._set_ring_limits()
            loader.load(channel)
        return channel

    def forget(self, channel: Channel) -> None:
        """Remove a channel without subscriptions."""
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            self._set_ring_limits()

    def _set_ring_limits(self) -> None:
        share = self._limits.bytes = self._ring_bytes // max(1, len(self._channels))
        if share <= self._trimmed_to // 2:  # rings without new events would otherwise keep their old, larger share
            for channel in self._channels.values():
                channel.trim()
        elif share < self._trimmed_to:
            return
        self._trimmed_to = share
