"""Takeover of connections: of all connections with the same identifier, over all replicas, only the newest stays open.

Each identifier has a key in Redis with the id of its newest connection. A replica that replaces this id publishes an
internal entry in a feed, which every replica reads anyway. A periodic check of the keys finds missed entries.
Ids sort by time of creation. So if Redis has lost its last write, and a key has an older id, a newer connection is not
closed.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from typing import Self, cast
from zlib import crc32

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.event import Event
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import Tasks
from progress_broker.storage.foreign import readable
from progress_broker.storage.internal_entries import publish_internal
from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import NO_OUTLET
from progress_broker.stream.stream import Mode, Stream

REPLACED = b"~replaced"
"""The name of the internal entries in the feeds. No operation has it: operation ids begin with a letter or a digit."""

NAME = b"replaced"
"""The event's type, and its id: a client that reconnects sends this id, and gets a 204."""

_HEAD = b"id: replaced\nevent: replaced\ndata: "
FRAME = Frame(0, b"", NAME, _HEAD + b"{}\n\n", len(_HEAD))

_RETRY_S = 0.1

CHECK_EVERY_S = 15.0
KEPT_S = 60
_PER_PIPELINE = 500


def replace(stream: Stream) -> None:
    """Close a stream, and tell its client not to reconnect. If its response has not started yet, do so once it has."""
    if stream.mode is Mode.CLOSED:
        return
    if stream.outlet is NO_OUTLET:
        asyncio.get_running_loop().call_later(_RETRY_S, replace, stream)
        return
    stream.outlet.write(stream.outlet.encoding.encode((FRAME,)))
    stream.close("replaced")


class Takeover:
    """The connections of this replica that have an identifier. Use it as an async context manager."""

    def __init__(self, store: Store, check_interval_s: float = CHECK_EVERY_S) -> None:
        self._store = store
        self._check_interval_s = check_interval_s
        self._ours: dict[str, tuple[str, Callable[[], None]]] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._ours)

    async def __aenter__(self) -> Self:
        self._tasks.keep_running(self._keep_checking)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def claim(self, identifier: str, connection: str, replaced: Callable[[], None]) -> None:
        """Make a connection the newest of its identifier. `replaced` is called once when another one takes over.

        The connection is already open. It stays open if Redis is unavailable: the next check then updates Redis.
        """
        key = f"{self._store.keyspace.prefix}:newest:{sha256(identifier.encode()).hexdigest()[:32]}"
        self._ours[connection] = key, replaced  # before Redis has it, or the next connection could miss it
        try:
            before = await self._replace_key(key, connection)
            if before is not None and before != connection.encode():
                await self._publish_replaced(before)
        except StorageFull:  # a check notifies the other replicas once Redis has memory again
            self._replace_here(key, connection)
        except StorageUnavailable:  # the next check updates Redis
            pass

    async def _replace_key(self, key: str, connection: str) -> bytes | None:
        commands = self._store.connections.commands
        try:
            with storage_errors():
                return cast("bytes | None", await commands.set(key, connection, ex=KEPT_S, get=True))
        except Unreadable:  # another program has overwritten the key
            with storage_errors():
                await commands.set(key, connection, ex=KEPT_S)
            return None

    def _replace_here(self, key: str, connection: str) -> None:
        for other, (theirs, _) in tuple(self._ours.items()):
            if theirs == key and other < connection:
                self._replace(other)

    async def _publish_replaced(self, connection: bytes) -> None:
        """Publish that a connection was replaced: every replica reads it."""
        keyspace = self._store.keyspace
        lane = crc32(connection) % keyspace.lanes
        await publish_internal(self._store.connections, keyspace, REPLACED, connection, lane)

    def release(self, connection: str) -> None:
        """Remove a connection that has closed."""
        self._ours.pop(connection, None)

    def received(self, event: Event) -> None:
        """Receive an internal entry from a feed: the connection in it is not the newest any more."""
        self._replace(event.data.decode("latin-1"))

    def _replace(self, connection: str) -> None:
        _, replaced = self._ours.pop(connection, (None, None))
        if replaced is not None:
            replaced()

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(self._check_interval_s)
            await self.check_all()

    async def check_all(self) -> None:
        """Refresh the keys of this replica's connections, and close those that are not the newest any more.

        What can't be reached is left for the next time.
        """
        ours: dict[str, list[str]] = {}
        for connection, (key, _) in self._ours.items():
            ours.setdefault(key, []).append(connection)
        for node in self._store.connections.by_node(list(ours)):
            pairs = iter([(connection, key) for key in node.keys for connection in ours[key]])
            with suppress(StorageUnavailable, StorageFull):
                while group := tuple(islice(pairs, _PER_PIPELINE)):
                    await self._compare(group)

    async def _compare(self, ours: Sequence[tuple[str, str]]) -> None:
        async with self._store.connections.commands.pipeline(transaction=False) as pipeline:
            for _, key in ours:
                pipeline.get(key)
                pipeline.expire(key, KEPT_S)
            with storage_errors():
                values = readable(await pipeline.execute(raise_on_error=False))[::2]
            for (connection, key), value in zip(ours, values, strict=True):
                if value is not None and value.decode("latin-1") > connection:
                    self._replace(connection)
                elif value != connection.encode() and connection in self._ours:
                    pipeline.set(key, connection, ex=KEPT_S)
            with storage_errors():
                await pipeline.execute()
