"""Redis' memory use, as Redis reports it. It is read on request, and unknown if Redis does not report it."""

import asyncio
from math import nan
from typing import Any

import redis.exceptions

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.foreign import warn_once

PATIENCE_S = 1.0


class MemoryUsage:
    """Redis' used memory and its maximum, in bytes. A maximum of 0 is no limit; NaN is unknown."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.used = self.maximum = nan

    async def refresh(self) -> None:
        """Read the values from Redis, for at most a second."""
        info: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                with storage_errors():
                    info = await self._client.info("memory")
        except (StorageUnavailable, StorageFull, TimeoutError, redis.exceptions.ResponseError) as error:
            warn_once("can't read Redis' memory use", str(error) or type(error).__name__)
        # Buffers of replicas and of the append-only file do not count against the maximum.
        self.used = _number(info, "used_memory") - _number(info, "mem_not_counted_for_evict", 0)
        self.maximum = _number(info, "maxmemory")


def _number(info: dict[str, Any], name: str, otherwise: float = nan) -> float:
    value = info.get(name)
    return float(value) if isinstance(value, int | float) else otherwise
