"""Redis' memory use, as Redis reports it. It is read on request, and unknown if Redis does not report it."""

import asyncio
from contextlib import suppress
from math import isnan, nan
from typing import Any, NamedTuple

import redis.exceptions

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import warn_once

PATIENCE_S = 1.0


class _Usage(NamedTuple):
    used: float
    maximum: float


class MemoryUsage:
    """Redis' used memory and its maximum, in bytes. A maximum of 0 is no limit; NaN is unknown.

    Of several servers it is the fullest one.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.used = self.maximum = nan

    async def refresh(self) -> None:
        """Read the values from Redis, for at most a second."""
        masters: list[Any] = []
        with suppress(StorageUnavailable):  # none answers
            masters = await self._connections.masters()
        read = await asyncio.gather(*map(_read, masters))
        known = [usage for usage in read if not isnan(usage.used)]
        self.used, self.maximum = max(known, key=_fullness, default=_Usage(nan, nan))


async def _read(master: Any) -> _Usage:
    info: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            with storage_errors():
                info = await master.info("memory")
    except (StorageUnavailable, StorageFull, TimeoutError, redis.exceptions.ResponseError) as error:
        warn_once("can't read Redis' memory use", str(error) or type(error).__name__)
    # Buffers of replicas and of the append-only file do not count against the maximum.
    used = _number(info, "used_memory") - _number(info, "mem_not_counted_for_evict", 0)
    return _Usage(used, _number(info, "maxmemory"))


def _fullness(usage: _Usage) -> tuple[float, float]:
    return usage.used / usage.maximum if usage.maximum > 0 else 0.0, usage.used


def _number(info: dict[str, Any], name: str, otherwise: float = nan) -> float:
    value = info.get(name)
    return float(value) if isinstance(value, int | float) else otherwise
