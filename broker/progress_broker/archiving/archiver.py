"""Archives operations when they have ended. It runs beside the servers, which need not know of it."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any

from progress_broker.archiving.archive import compressed, name_of
from progress_broker.archiving.stores import ObjectStore
from progress_broker.errors import Conflict, NotFound, StorageFull, StorageUnavailable
from progress_broker.model.operation import TERMINAL
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.runtime.tasks import end
from progress_broker.transfer.endpoints import OperationCopy
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.format import ExportHead
from progress_broker.transfer.redis.source import RedisCopy, head_of, read_each

log = logging.getLogger(__name__)

LEASE_S, RENEW_S = 30.0, 10.0
_AGAIN_MS = 5_000
"""How far a pass begins before the end of the one before: clocks of servers differ."""
_AT_ONCE, _PAGE = 50, 500
_SOON = 0.1
"""The part of its time that an operation should have left when it is archived."""


@dataclass(slots=True)
class Archived:
    """What an archiver has done."""

    written: int = 0
    known: int = 0
    """The archive had them already."""
    late: int = 0
    """Of those that were written, how many had less than a tenth of their time left."""


class Archiver:
    """Writes the ended operations of a Redis to an archive."""

    def __init__(self, store: Store, archive: ObjectStore) -> None:
        self.archived = Archived()
        self._store, self._archive = store, archive
        place = blake2s(archive.address.encode(), digest_size=8).hexdigest()
        self._lease = f"{store.keyspace.prefix}:archiver:{place}"
        self._places = f"{store.keyspace.prefix}:archived:{place}"
        self._name = secrets.token_hex(8)

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Hold the lease of this archive; raise `Conflict` if another archiver has it."""
        with storage_errors():
            mine = await self._store.connections.commands.set(self._lease, self._name, nx=True, px=_ms(LEASE_S))
        if not mine:
            raise Conflict(f"another `archive` writes to {self._archive.address} now; it may be started again in 30 s")
        renewing = asyncio.create_task(self._renew(asyncio.current_task()))
        try:
            yield
        finally:
            await end(renewing)
            with suppress(StorageUnavailable), storage_errors():
                if await self._store.connections.commands.get(self._lease) == self._name.encode():
                    await self._store.connections.commands.delete(self._lease)

    async def _renew(self, owner: "asyncio.Task[Any] | None") -> None:
        """Renew the lease. If another archiver has it, end the owner: what both write is the same, but costs twice."""
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(StorageUnavailable), storage_errors():
                if await self._store.connections.commands.get(self._lease) != self._name.encode():
                    log.error("another archiver has taken over; this one ends")
                    if owner is not None:
                        owner.cancel()
                    return
                await self._store.connections.commands.pexpire(self._lease, _ms(LEASE_S))

    async def run(self, every_s: float, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Archive what ends, until this is cancelled. While Redis or the archive is unavailable, it tries again."""
        while True:
            try:
                await self.pass_once()
            except (StorageUnavailable, StorageFull) as error:
                log.warning("archiving goes on later: %s", error.detail)
            await sleep(every_s)

    async def pass_once(self) -> None:
        """Archive what has ended and is not in the archive."""
        with storage_errors():
            places = await self._store.connections.commands.hgetall(self._places)
        for lane in range(self._store.keyspace.lanes):
            known = places.get(str(lane).encode(), b"0")
            await self._lane(lane, int(known) if known.isdigit() else 0)

    async def _lane(self, lane: int, known_ms: int) -> None:
        """Archive the operations of a lane that ended after a time."""
        last_ms = known_ms
        async for some in self._ended(lane, max(0, known_ms - _AGAIN_MS)):
            for at in range(0, len(some), _AT_ONCE):
                for copy in await read_each(self._store, [id for _, id in some[at : at + _AT_ONCE]]):
                    await self._put(copy)
            last_ms = max(last_ms, *(ms for ms, _ in some))
        if last_ms > known_ms:
            with storage_errors():
                await self._store.connections.commands.hset(self._places, str(lane), last_ms)

    async def _ended(self, lane: int, since_ms: int) -> AsyncGenerator[list[tuple[int, str]]]:
        """Yield when operations of a lane ended, and their ids. Some come twice."""
        keys = self._store.keyspace.lane(lane)
        for status in sorted(TERMINAL):
            since, most = since_ms, _PAGE
            while True:
                with storage_errors():
                    found = await self._store.connections.commands.zrangebyscore(
                        keys.index_of("status", status.value), since, "+inf", start=0, num=most, withscores=True
                    )
                page = [(int(ms), id.decode("utf-8", "replace")) for id, ms in found]
                if page:
                    yield page
                if len(page) < most:
                    break
                since, most = page[-1][0], _PAGE if page[-1][0] > since else 2 * most  # so many of one millisecond

    async def _put(self, copy: RedisCopy) -> None:
        name = name_of(copy.operation)
        if await self._archive.has(name):
            self.archived.known += 1
            return
        try:
            await self._archive.put(name, compressed(name, export_lines(_Only(self._store, copy))))
        except NotFound:  # it was deleted meanwhile
            return
        self.archived.written += 1
        expires = copy.operation.fields.get(b"expires", b"")
        retention_ms = copy.operation.fields.get(b"retention_ms", b"")
        if expires.isdigit() and retention_ms.isdigit():
            left_ms = int(expires) - (await self._store.now()).timestamp() * 1000
            if left_ms < _SOON * int(retention_ms):
                self.archived.late += 1
                if self.archived.late == 1:
                    log.warning(
                        "operation %s was archived shortly before it expires: archive more often", copy.operation.id
                    )


class _Only:
    """One operation as a source."""

    def __init__(self, store: Store, copy: RedisCopy) -> None:
        self._store, self._copy = store, copy

    async def head(self) -> ExportHead:
        now, prefix = await self._store.now(), self._store.keyspace.prefix
        return head_of(now, prefix, Filters(ids=(self._copy.operation.id,)))

    async def operations(self) -> AsyncGenerator[OperationCopy]:
        yield self._copy


def _ms(time_s: float) -> int:
    return round(1000 * time_s)
