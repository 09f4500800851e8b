"""What Redis has, for the metrics: operations by status, and whether the upkeep of replicas keeps pace.

It is read on request, and at most every five seconds. Every replica reports the same.
"""

import asyncio
import time
from collections.abc import Callable

from progress_broker.errors import BrokerError
from progress_broker.operations.store import Store
from progress_broker.replicas.figures import read_counts
from progress_broker.replicas.presence import list_replicas
from progress_broker.storage.foreign import warn_once

EVERY_S = 5.0
PATIENCE_S = 1.0


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
        counts = await read_counts(self._store)
        self.operations, self.unfinished_idle_s = counts.operations, counts.unfinished_idle_s
        self.expiry_overdue_s, self.leases_overdue_s = counts.expiry_overdue_s, counts.leases_overdue_s
        present = await list_replicas(self._store)
        self.replicas, self.settings_differ = len(present.replicas), len(present.differing)
