"""The newest of an identifier: of the connections that go by one, over all replicas, only the last that came stays.

Each has a key in Redis with the id of that connection; whoever replaces an id tells so through a feed, which every
replica reads anyway. A look at the keys now and then finds what was missed. Ids sort by when they were made, so a
Redis that has lost what was written last is not believed against a newer one.
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
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import Tasks
from progress_broker.storage.foreign import readable
from progress_broker.storage.redis_errors import storage_errors
from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import NO_OUTLET
from progress_broker.stream.stream import Mode, Stream

REPLACED = b"~replaced"
"""What the notes in the feeds go by. An operation's id begins with a letter or a digit."""

NAME = b"replaced"
"""The event's name, and its id: a client that comes back after it says so, and is told that nothing will follow."""

_HEAD = b"id: replaced\nevent: replaced\ndata: "
FRAME = Frame(0, b"", NAME, _HEAD + b"{}\n\n", len(_HEAD))

_AGAIN_S = 0.1

LOOK_EVERY_S = 15.0
KEPT_S = 60
_AT_ONCE = 500


def replace(stream: Stream) -> None:
    """End it, and tell its client not to come back. One whose way out is yet to open is ended when it has."""
    if stream.mode is Mode.CLOSED:
        return
    if stream.outlet is NO_OUTLET:
        asyncio.get_running_loop().call_later(_AGAIN_S, replace, stream)
        return
    stream.outlet.write(stream.outlet.encoding.encode((FRAME,)))
    stream.close("replaced")


class Newest:
    """The connections of this replica that have an identifier. Use it as an async context manager."""

    def __init__(self, store: Store, look_every_s: float = LOOK_EVERY_S) -> None:
        self._store = store
        self._look_every_s = look_every_s
        self._ours: dict[str, tuple[str, Callable[[], None]]] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._ours)

    async def __aenter__(self) -> Self:
        self._tasks.keep_up(self._look)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def come(self, identifier: str, connection: str, replaced: Callable[[], None]) -> None:
        """Let a connection be the newest; `replaced` is called once when another is.

        It is open by now, and stays so where Redis can't be told of it: then the next look does.
        """
        key = f"{self._store.keyspace.prefix}:newest:{sha256(identifier.encode()).hexdigest()[:32]}"
        self._ours[connection] = key, replaced  # before it is known, or the next to come could miss it
        try:
            before = await self._replace_key(key, connection)
            if before is not None and before != connection.encode():
                with storage_errors():
                    await self._note(before)
        except StorageFull:  # the others are told at a look, once there is room
            self._replace_here(key, connection)
        except StorageUnavailable:  # the next look tells Redis
            pass

    async def _replace_key(self, key: str, connection: str) -> bytes | None:
        commands = self._store.connections.commands
        try:
            with storage_errors():
                return cast("bytes | None", await commands.set(key, connection, ex=KEPT_S, get=True))
        except Unreadable:  # another program wrote something else there
            with storage_errors():
                await commands.set(key, connection, ex=KEPT_S)
            return None

    def _replace_here(self, key: str, connection: str) -> None:
        for other, (theirs, _) in tuple(self._ours.items()):
            if theirs == key and other < connection:
                self._replace(other)

    async def _note(self, connection: bytes) -> None:
        lane = crc32(connection) % self._store.keyspace.lanes
        feed, length = self._store.keyspace.lane(lane).feed, self._store.settings.feed_length
        entry = {"o": REPLACED, "t": "replaced", "d": connection}
        await self._store.connections.commands.xadd(feed, entry, maxlen=length, approximate=True)

    def leave(self, connection: str) -> None:
        """Forget a connection that has ended."""
        self._ours.pop(connection, None)

    def heard(self, event: Event) -> None:
        """Take a note from a feed: the connection it names is not the newest any more."""
        self._replace(event.data.decode("latin-1"))

    def _replace(self, connection: str) -> None:
        _, replaced = self._ours.pop(connection, (None, None))
        if replaced is not None:
            replaced()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            with suppress(StorageUnavailable, StorageFull):
                await self.look()

    async def look(self) -> None:
        """Keep the keys of our connections alive, and find those that are not the newest any more."""
        ours = iter([(connection, key) for connection, (key, _) in self._ours.items()])
        while some := tuple(islice(ours, _AT_ONCE)):
            await self._compare(some)

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
