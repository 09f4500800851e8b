"""What Redis has, for the metrics: operations by status, and whether the upkeep of replicas keeps pace.

It is read on request, and at most every five seconds. Every replica reports the same.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from progress_broker.errors import BrokerError
from progress_broker.model.operation import TERMINAL, Status
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.replicas.presence import list_replicas
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.lanes import FanOut

EVERY_S = 5.0
PATIENCE_S = 1.0

_UNFINISHED = tuple(status for status in Status if status not in TERMINAL)


class _Lane(NamedTuple):
    """What was read of one lane: a number for each status, and the first score of sorted sets, in ms."""

    counts: Sequence[int]
    oldest_change: float | None
    next_expiry: float | None
    next_lease: float | None


class RedisState:
    """What was read last. None is unknown."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._again_at = float("-inf")
        self.operations: dict[str, int] | None = None
        """How many operations have each status."""
        self.unfinished_idle_s: float | None = None
        """How long ago the operation changed that has not ended and has been without a change for the longest time."""
        self.expiry_overdue_s: float | None = None
        """How long the longest expired operation has waited to be removed."""
        self.leases_overdue_s: float | None = None
        """How long the longest expired lease has waited to be noticed."""
        self.replicas: int | None = None
        """How many replicas are present."""
        self.settings_differ: int | None = None
        """In how many settings replicas differ that should agree."""

    async def refresh(self) -> None:
        """Read it again, unless that was done in the last seconds."""
        if self._clock() < self._again_at:
            return
        self._again_at = self._clock() + EVERY_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._read()
        except (BrokerError, TimeoutError) as error:
            self.operations = self.unfinished_idle_s = self.expiry_overdue_s = self.leases_overdue_s = None
            self.replicas = self.settings_differ = None
            if not isinstance(error, TimeoutError):
                warn_once("what Redis has can't be read for the metrics", error.detail)

    async def _read(self) -> None:
        now_ms = (await self._store.now()).timestamp() * 1000
        lanes = (await FanOut(self._store.connections, self._store.keyspace).ask(self._lanes)).values()
        totals = [sum(numbers) for numbers in zip(*(lane.counts for lane in lanes), strict=True)]
        self.operations = dict(zip(Status, totals, strict=True))
        self.unfinished_idle_s = _overdue_s(now_ms, [lane.oldest_change for lane in lanes])
        self.expiry_overdue_s = _overdue_s(now_ms, [lane.next_expiry for lane in lanes])
        self.leases_overdue_s = _overdue_s(now_ms, [lane.next_lease for lane in lanes])
        present = await list_replicas(self._store)
        self.replicas, self.settings_differ = len(present.replicas), len(present.differing)

    async def _lanes(self, lanes: Sequence[int]) -> list[_Lane]:
        of_lane = len(Status) + len(_UNFINISHED) + 2
        async with self._store.connections.commands.pipeline(transaction=False) as redis:
            for lane in lanes:
                keys = self._store.keyspace.lane(lane)
                for status in Status:
                    redis.zcard(keys.index_of("status", status))
                for key in (*(keys.index_of("status", status) for status in _UNFINISHED), keys.expiry, keys.leases):
                    redis.zrange(key, 0, 0, withscores=True)
            with storage_errors():
                replies: list[Any] = await redis.execute()
        found = []
        for at in range(0, len(replies), of_lane):
            counts, firsts = replies[at : at + len(Status)], replies[at + len(Status) : at + of_lane]
            *changes, expiry, lease = [float(first[0][1]) if first else None for first in firsts]
            found.append(_Lane(counts, min((it for it in changes if it is not None), default=None), expiry, lease))
        return found


def _overdue_s(now_ms: float, scores: Sequence[float | None]) -> float:
    """Return how long ago the earliest of these times was; 0 if there is none, or if it is to come."""
    earliest = min((score for score in scores if score is not None), default=now_ms)
    return max(0.0, (now_ms - earliest) / 1000)
