"""The deny list: whose tokens count no more, though they have not expired. Redis holds it, replicas know it by heart.

<prefix>:denied       sorted set of `sub:<name>` and `jti:<token's id>`, by when each is forgotten, in ms since 1970
<prefix>:meta denials goes up with each change, so that nobody reads the list for nothing
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from broker.connections import storage_errors
from broker.errors import StorageFull, StorageUnavailable
from broker.keys import denied_key, meta_key
from broker.store import Store

COUNT = "denials"
LONGEST_S = 366 * 86_400.0

What = Literal["sub", "jti"]


class DenyList:
    """What this replica knows of the list. Where Redis is away or has lost it, that goes on to count."""

    def __init__(self, store: Store, period_s: float, clock: Callable[[], float] = time.time) -> None:
        self._store, self._period_s, self._clock = store, period_s, clock
        self._until: dict[str, float] = {}
        self._count: bytes | None = None

    def __len__(self) -> int:
        return len(self._until)

    def denies(self, name: str, token_id: str | None) -> bool:
        """Return whether a principal, or the token it came with, is denied."""
        if not self._until:
            return False
        return self._denied(f"sub:{name}") or (token_id is not None and self._denied(f"jti:{token_id}"))

    def _denied(self, entry: str) -> bool:
        return self._until.get(entry, 0) > self._clock()

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep up with the list for ever; call `changed` each time while it denies anybody."""
        while True:
            with suppress(StorageUnavailable, StorageFull):  # then what is known counts on
                await self.refresh()
            if self._until:
                changed()
            await asyncio.sleep(self._period_s)

    async def refresh(self) -> None:
        """Take in what has changed; raise `StorageUnavailable`."""
        prefix, client = self._store.keyspace.prefix, self._store.connections.commands
        now = self._clock()
        with storage_errors():
            count = await client.hget(meta_key(prefix), COUNT)
            if count != self._count and count is not None:
                entries = await client.zrangebyscore(denied_key(prefix), now * 1000, "+inf", withscores=True)
                # What was known stays: nothing is taken off the list, but Redis may have lost it.
                self._until |= {entry.decode("utf-8", "replace"): ms / 1000 for entry, ms in entries}
        self._count = count
        if self._until:
            self._until = {entry: until for entry, until in self._until.items() if until > now}


async def deny(store: Store, what: What, value: str, for_s: float) -> None:
    """Deny a principal (`sub`) or a token (`jti`) for so many seconds; longer if it is denied for longer already."""
    prefix, client = store.keyspace.prefix, store.connections.commands
    key, now = denied_key(prefix), time.time()
    with storage_errors():
        await client.zremrangebyscore(key, "-inf", now * 1000)
        await client.zadd(key, {f"{what}:{value}": (now + for_s) * 1000}, gt=True)
        [(_, last)] = await client.zrevrange(key, 0, 0, withscores=True)
        await client.pexpireat(key, int(last) + 1000)
        await client.hincrby(meta_key(prefix), COUNT, 1)  # after it, so that who sees this sees that
