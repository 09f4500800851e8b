"""The deny list: principals and tokens that were revoked before they expire. It is in Redis; replicas keep a copy.

<prefix>:denied       sorted set of `sub:<name>` and `jti:<token's id>`; the score is the expiry in ms since 1970;
                      `-sub:<name>` means that the revocation was withdrawn
<prefix>:meta denials a new random string with each change, so that replicas read the list only after a change. It is
                      not a counter: if Redis lost a counter and restarted it, it could reach an old value again
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple, get_args

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.storage import versioned
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.keys import denied_key
from progress_broker.storage.scripts import DENY

LONGEST_S = 366 * 86_400.0
RESTORED = "-"
"""The prefix of a withdrawn revocation. A missing entry proves nothing, because Redis may have lost it."""
_KEPT_S = 3_600.0
"""The minimum time that a withdrawal stays in the list, for replicas that are disconnected."""

Claim = Literal["sub", "jti"]


class RevokedClaim(NamedTuple):
    """A principal (`sub`) or a token (`jti`) that is revoked until a time, in seconds since 1970."""

    claim: Claim
    value: str
    until: float


class DenyList(versioned.Copy):
    """This replica's copy of the list. It stays valid while Redis is unavailable, or if Redis has lost the list."""

    WORD: ClassVar[str] = "denials"

    def __init__(self, store: Store, period_s: float, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._store, self._period_s, self._clock = store, period_s, clock
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def is_revoked(self, name: str, token_id: str | None) -> bool:
        """Return whether a principal or its token is revoked now, by this replica's copy."""
        if not self._until:
            return False
        return self._denied(f"sub:{name}") or (token_id is not None and self._denied(f"jti:{token_id}"))

    def _denied(self, entry: str) -> bool:
        return self._until.get(entry, 0) > self._clock()

    async def run(self, changed: Callable[[], None], *others: versioned.Copy) -> None:
        """Refresh the copy periodically, and others with it; call `changed` each time, unless the list is empty."""
        while True:
            try:
                await self.refresh(*others)
            except (StorageUnavailable, StorageFull):
                pass  # the copy stays valid
            except Unreadable as error:  # the copy stays valid; the next revocation creates the list again
                warn_once("revocations or limits can't be read from Redis", error.detail)
            if self._until:
                changed()
            await asyncio.sleep(self._period_s)

    async def refresh(self, *others: versioned.Copy) -> None:
        """Read the list if it has changed, and others; raise `StorageUnavailable`."""
        await versioned.refresh(self._store.connections, self._store.keyspace, (self, *others))
        now = self._clock()
        if self._until:
            self._until = {entry: until for entry, until in self._until.items() if until > now}

    async def read(self) -> None:
        """Read the list."""
        key, client = denied_key(self._store.keyspace.prefix), self._store.connections.commands
        with storage_errors():
            entries = await client.zrangebyscore(key, self._clock() * 1000, "+inf", withscores=True)
        self._take({entry.decode("utf-8", "replace"): ms / 1000 for entry, ms in entries})

    def _take(self, listed: dict[str, float]) -> None:
        """Merge a list into the copy. Entries that are not in the list stay, because Redis may have lost them."""
        self._until |= {entry: until for entry, until in listed.items() if not entry.startswith(RESTORED)}
        for entry in listed:
            if entry.startswith(RESTORED) and (name := entry.removeprefix(RESTORED)) not in listed:
                self._until.pop(name, None)


async def revoke_claim(store: Store, claim: Claim, value: str, for_s: float) -> RevokedClaim:
    """Revoke a principal (`sub`) or a token (`jti`) for `for_s` seconds. A longer existing revocation stays."""
    until_ms, _ = await _change(store, f"{claim}:{value}", "DENY", for_s)
    return RevokedClaim(claim, value, until_ms / 1000)


async def restore_claim(store: Store, claim: Claim, value: str) -> bool:
    """Withdraw a revocation; return whether there was one."""
    _, before_ms = await _change(store, f"{claim}:{value}", "ALLOW", _KEPT_S)
    return before_ms > 0


async def list_revoked(store: Store, start: int, count: int) -> tuple[list[RevokedClaim], int | None]:
    """Return a page of revocations, last expiry first, and the start of the next page or None."""
    with storage_errors():
        key, client = denied_key(store.keyspace.prefix), store.connections.commands
        found = await client.zrevrangebyscore(
            key, "+inf", f"({time.time() * 1000}", start=start, num=count, withscores=True
        )
    pairs = [(entry.decode("utf-8", "replace").partition(":"), ms / 1000) for entry, ms in found]
    page = [RevokedClaim(claim, value, until) for (claim, _, value), until in pairs if claim in get_args(Claim)]
    return page, start + count if len(found) == count else None


async def _change(store: Store, entry: str, verb: Literal["DENY", "ALLOW"], for_s: float) -> tuple[int, int]:
    """Set or withdraw a revocation, and notify the replicas; return its new and its former expiry, in ms."""
    prefix, connections = store.keyspace.prefix, store.connections
    call = Call(DENY, (denied_key(prefix),), (entry, verb, str(math.ceil(1000 * for_s))))
    until_ms, before_ms = await connections.scripts.run(call)
    await versioned.changed(connections, store.keyspace, DenyList.WORD)
    return until_ms, before_ms
