"""How full Redis is, as it says itself: asked when somebody wants to know, and unknown where it does not tell."""

import asyncio
from math import nan
from typing import Any

import redis.exceptions

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.redis_errors import storage_errors

PATIENCE_S = 1.0


class Memory:
    """What Redis uses and may use, in bytes; 0 at most is no bound, and not a number is unknown."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.used = self.maximum = nan

    async def refresh(self) -> None:
        """Ask Redis, for a second at most."""
        told: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                with storage_errors():
                    told = await self._client.info("memory")
        except (StorageUnavailable, StorageFull, TimeoutError, redis.exceptions.ResponseError) as error:
            warn_once("how full Redis is can't be told", str(error) or type(error).__name__)
        # Buffers of replicas and of the append-only file do not count against the maximum.
        self.used = _number(told, "used_memory") - _number(told, "mem_not_counted_for_evict", 0)
        self.maximum = _number(told, "maxmemory")


def _number(told: dict[str, Any], name: str, otherwise: float = nan) -> float:
    value = told.get(name)
    return float(value) if isinstance(value, int | float) else otherwise
