"""A Redis that loses what was written last, as in a failover to a server that did not have it yet."""

from collections.abc import Sequence
from typing import Any

from progress_broker.history.losses import Lost
from progress_broker.model.event import Event, LastEvent
from progress_broker.model.position import a_minute_before, order
from progress_broker.operations.store import Store


class Remembered:
    """What Redis had of an operation and of its lane at a moment."""

    def __init__(self, store: Store, had: dict[str, tuple[bytes | None, int]]) -> None:
        self._store, self._had = store, had

    @classmethod
    async def of(cls, store: Store, operation: str) -> "Remembered":
        """Remember what Redis has now."""
        keys = store.keyspace.operation(operation)
        lane = (keys.lane.feed, f"{keys.lane.feed}:length", keys.lane.index, keys.lane.expiry, keys.lane.leases)
        own = (keys.snapshot, keys.log, keys.kept, keys.curve, keys.signals)
        redis: Any = store.connections.commands
        return cls(store, {key: (await redis.dump(key), await redis.pttl(key)) for key in (*own, *lane)})

    async def lose_the_rest(self) -> None:
        """Let Redis have what it had then, and nothing of what came since."""
        redis: Any = self._store.connections.commands
        for key, (value, left_ms) in self._had.items():
            await redis.delete(key)
            if value is not None:
                await redis.restore(key, max(0, left_ms), value)


def shared_with(events: Sequence[Event], lost: Lost | None) -> LastEvent | None:
    """Return the last event that a log shares with whoever has lost a position, as far as is known."""
    if lost is None:
        return None
    known = lost.certain or any(event.position == lost.position for event in events)
    last = lost.position if known else a_minute_before(lost.position) if lost.of_lane else b"0-0"
    before = [LastEvent(it.n, it.position) for it in events if order(it.position) <= order(last)]
    return before[-1] if before else LastEvent(0, b"0-0")
