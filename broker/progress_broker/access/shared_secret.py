"""The secret that all replicas share if none is configured. The first replica generates it, and Redis stores it."""

import secrets
import time
from collections.abc import Callable

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.runtime.single_flight import SingleFlight
from progress_broker.storage.keys import secrets_key

FIELD = "tickets"
KEPT_S = 10.0
"""How long the secret is cached. If Redis loses it, another one may be generated, so it must be read again."""


class SharedSecret:
    """This replica's copy of the secret."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._kept: bytes | None = None
        self._until = 0.0
        self._flights = SingleFlight()

    async def get(self) -> bytes:
        """Return the secret. While Redis is unavailable, return the cached one or raise `StorageUnavailable`."""
        if self._kept is None or self._clock() >= self._until:
            try:
                self._kept = await self._flights.share(FIELD, self._read)
            except (StorageUnavailable, StorageFull):
                if self._kept is None:
                    raise
            self._until = self._clock() + KEPT_S
        return self._kept

    async def _read(self) -> bytes:
        key = secrets_key(self._store.keyspace.prefix)
        client = self._store.connections.commands
        with storage_errors():
            found = await client.hget(key, FIELD)
            if found is None:
                await client.hsetnx(key, FIELD, secrets.token_hex(32))
                found = await client.hget(key, FIELD)
        if found is None:
            raise StorageUnavailable("Redis did not store the secret that signs tickets: retry in a moment")
        return bytes(found)
