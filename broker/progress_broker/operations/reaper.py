"""The reaper ends operations whose worker has died, so that they do not stay `running` forever. Every replica runs it.

Its events are stored only if the lease is still expired. So if several reapers act at once, or a worker returns, only
the first one changes the operation.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Container, Iterable
from contextlib import suppress
from typing import Self

import redis.exceptions

from progress_broker.errors import BrokerError, StorageFull, StorageUnavailable
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import Status
from progress_broker.operations import retention
from progress_broker.operations.store import Store
from progress_broker.operations.upkeep import LEASES_PER_LANE
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.lanes import FanOut

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""After a lane was unreachable, workers get this long to send a heartbeat, because they could not do so before."""

REPAIR_INTERVAL_S = 60.0
"""How often the orders of creation are compared with the lanes, and repaired where they differ."""

_ROUNDS = 20  # in case that many operations can't be changed

_STALLED = NewEvent("status", b'{"status":"stalled"}', "stalled")
_LOST = {"type": "worker-lost", "message": "the worker stopped sending heartbeats and did not come back"}
_LOST_WHEN_ASKED = {
    "type": "worker-lost",
    "message": "the worker stopped sending heartbeats after it was asked to stop",
}


class Reaper:
    """Finds operations whose worker sends no heartbeat, removes expired operations, and repairs orders of creation.

    Use it as an async context manager.
    """

    def __init__(self, store: Store, *, grace_s: float = GRACE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._settings = store.settings
        self._grace_s = grace_s
        self._wait_ms = round(1000 * self._settings.worker_lost_after_s)
        self._not_before = dict.fromkeys(range(store.keyspace.lanes), clock() + grace_s)
        self._repair_at = clock()
        self._tasks = Tasks()
        self.stalled = self.lost = self.expired = 0

    async def __aenter__(self) -> Self:
        self._tasks.keep_running(self._reap)
        self._tasks.keep_running(self._sweep)
        self._tasks.spawn(self._retain())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def reap(self, held: Container[int] = ()) -> Collection[int]:
        """Change each operation whose lease has expired: from running to stalled, or from another status to its end.

        Those in the lanes that are `held` are left as they are. Return the lanes that could not be reached; if there is
        no other, raise `StorageUnavailable` or `StorageFull`.
        """
        lanes = self._store.fan_out()
        for _ in range(_ROUNDS):
            expired = await self._store.upkeep.expired_leases(lanes, held)
            await self._change(expired, lanes)
            if len(expired) < LEASES_PER_LANE:
                break
        return lanes.away

    async def _change(self, expired: Iterable[tuple[str, Status]], lanes: FanOut) -> None:
        for operation, status in expired:
            lane = self._store.keyspace.lane_of(operation)
            if lane in lanes.away:
                continue
            try:
                await self._store.publish(
                    operation, [self._step(status)], expect=status, lease_expired=True, lease_ms=self._wait_ms
                )
            except (StorageUnavailable, StorageFull) as error:
                lanes.leave_out(lane, error)
                continue
            except redis.exceptions.ResponseError as error:
                warn_once(f"operation {operation} has an expired lease, but changing its status failed", str(error))
                continue
            except BrokerError as error:
                log.debug("operation %s is not changed: %s", operation, error.detail)
                continue
            if status is Status.RUNNING:
                log.info("operation %s is stalled: its worker sends no heartbeat", operation)
                self.stalled += 1
            else:
                log.info("operation %s (%s) is ended: its worker sends no heartbeat", operation, status)
                self.lost += 1

    def _step(self, status: Status) -> NewEvent:
        if status is Status.RUNNING:
            return _STALLED
        if status is Status.CANCELLING:
            return encode("end", {"status": "cancelled", "error": _LOST_WHEN_ASKED}, self._settings)
        return encode("end", {"status": "failed", "error": _LOST}, self._settings)

    async def _reap(self) -> None:
        while True:
            await _pause(self._settings.lease_check_interval_s)
            await self._reap_once()

    async def _reap_once(self) -> None:
        """Act on the leases of lanes whose workers had time for a heartbeat."""
        now = self._clock()
        away: Collection[int] = self._not_before
        with suppress(StorageUnavailable, StorageFull):
            away = await self.reap({lane for lane, at in self._not_before.items() if at > now})
        self._not_before |= dict.fromkeys(away, self._clock() + self._grace_s)

    async def _retain(self) -> None:
        await until_back(lambda: retention.apply_settings(self._store), wanted=lambda: True)

    async def _sweep(self) -> None:
        while True:
            await _pause(self._settings.sweep_interval_s)
            with suppress(StorageUnavailable, StorageFull):
                self.expired += await self._store.upkeep.sweep()
                await self._repair()

    async def _repair(self) -> None:
        if self._clock() < self._repair_at:
            return
        self._repair_at = self._clock() + REPAIR_INTERVAL_S
        if repaired := await self._store.upkeep.repair():
            log.info("added or removed %d operations in orders of creation, as an earlier release does not", repaired)


async def _pause(about_s: float, chance: Callable[[], float] = random.random) -> None:
    await asyncio.sleep(
        about_s * (0.5 + chance())
    )  # randomized, so that replicas that started together act at different times
