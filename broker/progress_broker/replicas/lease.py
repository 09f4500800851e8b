"""A lease in Redis: of several processes, one at a time has it."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from progress_broker.errors import Conflict, StorageFull, StorageUnavailable
from progress_broker.nodes.calls import Call
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import end
from progress_broker.storage.scripts import CLAIM

LEASE_S, RENEW_S = 30.0, 10.0
"""How long a process that died has the lease, and how often one that lives renews it."""
_TRY_AGAIN_S = 2.0


class Lease:
    """The lease at a key, for this process."""

    def __init__(self, store: Store, key: str, what: str) -> None:
        self._store, self._key, self._what = store, key, what
        self.name = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        """The name of this process, which is at the key."""

    @asynccontextmanager
    async def held(self, waits: Callable[[str], None] | None = None) -> AsyncGenerator[None]:
        """Have the lease in the block.

        If another process has it, wait until it ends, and call `waits` once with a text that says who that is; without
        `waits`, raise `Conflict`. The block ends with `Conflict`, too, if another process has taken the lease over,
        as it may when this one was not heard of for 30 s.
        """
        await self._take(waits)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                renewing = asyncio.create_task(self._renew(scope))
                try:
                    yield
                finally:
                    await end(renewing)
        except TimeoutError:
            if scope.expired():
                raise Conflict(f"another process has taken over {self._what}, as this one was away") from None
            raise
        finally:
            with suppress(StorageUnavailable, StorageFull):
                await self._call("GIVE_UP")

    async def _take(self, waits: Callable[[str], None] | None) -> None:
        said = None
        while (holder := await self.claim()) is not None:
            if waits is None:
                raise Conflict(f"{holder} has {self._what} now; one that died has it for {LEASE_S:.0f} s more at most")
            if holder != said:
                waits(f"waiting for {self._what}: {holder} has it")
                said = holder
            await asyncio.sleep(_TRY_AGAIN_S)

    async def _renew(self, scope: asyncio.Timeout) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(StorageUnavailable, StorageFull):  # the next one may take it back, if nobody else has
                if await self.claim() is not None:
                    scope.reschedule(0)
                    return

    async def claim(self) -> str | None:
        """Take or renew the lease; return who else has it."""
        holder = await self._call("FOR", str(round(1000 * LEASE_S)))
        if holder == self.name:
            return None
        host, _, rest = holder.partition(" ")
        return f"process {rest.partition(' ')[0]} of {host}"

    async def _call(self, *words: str) -> str:
        holder: bytes = await self._store.connections.scripts.run(Call(CLAIM, (self._key,), (self.name, *words)))
        return holder.decode("utf-8", "replace")
