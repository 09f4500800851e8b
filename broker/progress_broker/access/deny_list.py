"""The deny list: whose tokens count no more, though they have not expired. Redis holds it, replicas know it by heart.

<prefix>:denied       sorted set of `sub:<name>` and `jti:<token's id>`, by when each is forgotten, in ms since 1970;
                      `-sub:<name>` is one that was taken back
<prefix>:meta denials another word with each change, so that nobody reads the list for nothing; no count, as one that
                      Redis lost and began anew could come to where it was
"""

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.operations.store import Store
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.keys import denied_key, meta_key
from progress_broker.storage.redis_errors import storage_errors
from progress_broker.storage.run import run
from progress_broker.storage.scripts import DENY, Call

VERSION = "denials"
LONGEST_S = 366 * 86_400.0
TAKEN_BACK = "-"
"""What an entry begins with whose revocation was taken back. That it is not there tells nothing: Redis may lose it."""
_TOLD_S = 3_600.0
"""How long that is told at least, for replicas that are cut off."""

Claim = Literal["sub", "jti"]


class Denial(NamedTuple):
    """A principal (`sub`) or a token (`jti`) that is denied, until a moment in seconds since 1970."""

    claim: Claim
    value: str
    until: float


class DenyList:
    """What this replica knows of the list. Where Redis is away or has lost it, that goes on to count."""

    def __init__(self, store: Store, period_s: float, clock: Callable[[], float] = time.time) -> None:
        self._store, self._period_s, self._clock = store, period_s, clock
        self._until: dict[str, float] = {}
        self._version: bytes | None = None

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
            try:
                await self.refresh()
            except (StorageUnavailable, StorageFull):
                pass  # what is known counts on
            except Unreadable as error:  # likewise; the next revocation makes the list anew
                warn_once("revocations can't be read", error.detail)
            if self._until:
                changed()
            await asyncio.sleep(self._period_s)

    async def refresh(self) -> None:
        """Take in what has changed; raise `StorageUnavailable`."""
        prefix, client = self._store.keyspace.prefix, self._store.connections.commands
        now = self._clock()
        with storage_errors():
            version = await client.hget(meta_key(prefix), VERSION)
            if version != self._version and version is not None:
                entries = await client.zrangebyscore(denied_key(prefix), now * 1000, "+inf", withscores=True)
                self._take({entry.decode("utf-8", "replace"): ms / 1000 for entry, ms in entries})
        self._version = version
        if self._until:
            self._until = {entry: until for entry, until in self._until.items() if until > now}

    def _take(self, listed: dict[str, float]) -> None:
        """Take in a list. What it does not have stays: Redis may have lost it."""
        self._until |= {entry: until for entry, until in listed.items() if not entry.startswith(TAKEN_BACK)}
        for entry in listed:
            if entry.startswith(TAKEN_BACK) and (name := entry.removeprefix(TAKEN_BACK)) not in listed:
                self._until.pop(name, None)


async def deny(store: Store, claim: Claim, value: str, for_s: float) -> Denial:
    """Deny a principal (`sub`) or a token (`jti`) for so many seconds; longer if it is denied for longer already."""
    until_ms, _ = await _change(store, f"{claim}:{value}", "DENY", for_s)
    return Denial(claim, value, until_ms / 1000)


async def reinstate(store: Store, claim: Claim, value: str) -> bool:
    """Deny a principal or a token no more; return whether it was denied."""
    _, before_ms = await _change(store, f"{claim}:{value}", "ALLOW", _TOLD_S)
    return before_ms > 0


async def denials(store: Store, start: int, count: int) -> tuple[list[Denial], int | None]:
    """Return a page of who is denied, the longest first, and where the next one starts, if there is more."""
    with storage_errors():
        key, client = denied_key(store.keyspace.prefix), store.connections.commands
        found = await client.zrevrangebyscore(
            key, "+inf", f"({time.time() * 1000}", start=start, num=count, withscores=True
        )
    pairs = [(entry.decode("utf-8", "replace").partition(":"), ms / 1000) for entry, ms in found]
    page = [Denial(claim, value, until) for (claim, _, value), until in pairs if claim in get_args(Claim)]
    return page, start + count if len(found) == count else None


async def _change(store: Store, entry: str, verb: Literal["DENY", "ALLOW"], for_s: float) -> tuple[int, int]:
    """Deny an entry, or no more, for a time, and have the replicas read the list; return what the script does."""
    prefix, client = store.keyspace.prefix, store.connections.commands
    call = Call(DENY, (denied_key(prefix),), (entry, verb, str(math.ceil(1000 * for_s))))
    until_ms, before_ms = await run(client, call)
    with storage_errors():
        await client.hset(meta_key(prefix), VERSION, secrets.token_hex(8))  # after it: who sees this sees that
    return until_ms, before_ms
