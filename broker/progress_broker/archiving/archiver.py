"""Archives operations when they have ended. It runs beside the servers, which need not know of it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2s

from progress_broker.archiving.archive import compressed, name_of
from progress_broker.archiving.stores import ObjectStore
from progress_broker.errors import BrokerError, Gone, NotFound, StorageFull, StorageUnavailable
from progress_broker.model.operation import TERMINAL
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.replicas.lease import Lease
from progress_broker.transfer.endpoints import OperationCopy
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.format import ExportHead
from progress_broker.transfer.redis.source import RedisCopy, head_of, read_each

log = logging.getLogger(__name__)

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
    failed: int = 0
    """Could not be read. The log names them."""


class Archiver:
    """Writes the ended operations of a Redis to an archive."""

    def __init__(self, store: Store, archive: ObjectStore) -> None:
        self.archived = Archived()
        self._store, self._archive = store, archive
        place = blake2s(archive.address.encode(), digest_size=8).hexdigest()
        self.lease = Lease(store, f"{store.keyspace.prefix}:archiver:{place}", f"the archive {archive.address}")
        self._places = f"{store.keyspace.prefix}:archived:{place}"

    async def run(self, every_s: float, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Archive what ends, until this is cancelled. While Redis or the archive is unavailable, it tries again."""
        while True:
            try:
                await self.pass_once()
            except (StorageUnavailable, StorageFull) as error:
                log.warning("archiving goes on later: %s", error.detail)
            await sleep(every_s)

    async def pass_once(self) -> None:
        """Archive what has ended and is not in the archive. What one lane lacks now does not keep back the others."""
        away: StorageUnavailable | StorageFull | None = None
        with storage_errors():
            places = await self._store.connections.commands.hgetall(self._places)
        for lane in range(self._store.keyspace.lanes):
            known = places.get(str(lane).encode(), b"0")
            try:
                await self._lane(lane, int(known) if known.isdigit() else 0)
            except (StorageUnavailable, StorageFull) as error:
                away = error
        if away is not None:
            raise away

    async def _lane(self, lane: int, known_ms: int) -> None:
        """Archive the operations of a lane that ended after a time."""
        # What ends while this goes on may have an index that was read already: the next pass begins before it.
        begun_ms = int((await self._store.now()).timestamp() * 1000)
        last_ms = known_ms
        async for some in self._ended(lane, max(0, known_ms - _AGAIN_MS)):
            for at in range(0, len(some), _AT_ONCE):
                for copy in await read_each(self._store, [id for _, id in some[at : at + _AT_ONCE]]):
                    await self._put(copy)
            last_ms = max(last_ms, *(ms for ms, _ in some))
        last_ms = min(last_ms, begun_ms)
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
        except (NotFound, Gone):  # it was deleted meanwhile
            return
        except (StorageUnavailable, StorageFull):
            raise
        except BrokerError as error:
            self.archived.failed += 1
            log.error("operation %s is not archived: %s", copy.operation.id, error.detail)
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
