"""Who may write to a target: one `copy` at a time, and only to a Redis that is empty or its copy, and that nobody uses.

<prefix>:copying      string: the `copy` that runs. It expires 30 s after that one has stopped
<prefix>:meta copy_of which Redis this one is a copy of; until the cut-over
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from progress_broker.copying.following import LaneCopy, newest
from progress_broker.errors import Conflict, StorageFull, StorageUnavailable
from progress_broker.model.position import order
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.replicas.lease import Lease
from progress_broker.replicas.presence import present_replicas
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import copying_key, meta_key

MARK = "copy_of"
"""The field of the meta key."""
_NAMELESS = b"nameless"
"""The name of a source that is too full to store one. What its feeds have tells it from others, too."""


class Claim:
    """The right to write to a target."""

    def __init__(self, source: Store, target: Store) -> None:
        self._source, self._target = source, target
        self._meta = meta_key(target.keyspace.prefix)
        self._lease = Lease(target, copying_key(target.keyspace.prefix), "the target of the copy")

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """Claim the target; raise `Conflict` if another `copy` writes to it, or if it is no copy of the source."""
        async with self._lease.held():
            await self._check()
            yield

    async def unmark(self) -> None:
        """Make the target no copy any more, but a Redis like others."""
        with storage_errors():
            await self._target.connections.commands.hdel(self._meta, MARK)

    async def _check(self) -> None:
        with storage_errors():
            holder = await self._source.connections.commands.get(copying_key(self._source.keyspace.prefix))
            if holder == self._lease.name.encode():
                raise Conflict("the target is the source itself: give --to-redis-url another Redis, or --to-prefix")
        await check_unused(self._target)
        commands, origin = self._target.connections.commands, await self._origin()
        with storage_errors():
            mark = await commands.hget(self._meta, MARK)
        if mark is None:
            if await self._holds_something():
                raise Conflict(
                    "the target is neither empty nor a copy: use an empty Redis, or another --to-prefix;"
                    " `export` and `import` add to what is there"
                )
            with storage_errors():
                await commands.hset(self._meta, MARK, origin)
        elif mark != origin and _NAMELESS not in (mark, origin):
            raise Conflict("the target is a copy of another Redis: use an empty one, or another --to-prefix")
        await self._check_ends()

    async def _origin(self) -> bytes:
        """Return what names the source: a field of its meta key, so that it may move to another address."""
        commands, meta = self._source.connections.commands, meta_key(self._source.keyspace.prefix)
        try:
            with storage_errors():
                origin: bytes | None = await commands.hget(meta, "origin")
                if origin is None:
                    await commands.hsetnx(meta, "origin", secrets.token_hex(8))
                    origin = await commands.hget(meta, "origin")
        except StorageFull:  # which may be why it is copied to another one
            return _NAMELESS
        if origin is None:
            raise StorageUnavailable("the source did not store its name: try again")
        return origin

    async def _holds_something(self) -> bool:
        lanes = [self._target.keyspace.lane(number) for number in range(self._target.keyspace.lanes)]
        async with self._target.connections.commands.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.zcard(lane.index)
                pipeline.xlen(lane.feed)
            with storage_errors():
                return any(readable(await pipeline.execute(raise_on_error=False)))

    async def _check_ends(self) -> None:
        """Raise `Conflict` if the feeds of the target end with what the source does not have, and did not trim."""
        lanes = [LaneCopy(number) for number in range(self._target.keyspace.lanes)]
        ends = await newest(self._target, lanes)
        async with self._source.connections.commands.pipeline(transaction=False) as pipeline:
            for lane, entry in zip(lanes, ends, strict=True):
                pipeline.xrevrange(self._source.keyspace.lane(lane.number).feed, max=entry[0], count=1)
            with storage_errors():
                found = readable(await pipeline.execute(raise_on_error=False))
        for lane, entry, ours in zip(lanes, ends, found, strict=True):
            if ours and (order(ours[0][0]) != order(entry[0]) or list(ours[0][1]) != list(entry[1])):
                raise Conflict(
                    f"lane {lane.number} of the target ends with {entry[0].decode()}, which the source does not have:"
                    " a server or a worker used the copy, or the source has lost it. Empty the target, and begin again"
                )


async def check_unused(target: Store) -> None:
    """Raise `Conflict` if servers run at the target: their entries would take the places of those of the source."""
    if present := await present_replicas(target):
        names = ", ".join(f"{state.id} at {state.host}" for state in present[:5])
        raise Conflict(
            f"servers use the target: {names}. Stop them until the cut-over; one that was killed counts for 15 s more"
        )
