"""The connection that reads the feeds. On the live path, commands are encoded here and not by the client library."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from redis.exceptions import AskError, MovedError

from progress_broker.errors import Unreadable
from progress_broker.history.losses import Loss
from progress_broker.live.feeds.landmarks import Landmark, Landmarks
from progress_broker.model.position import a_minute_before, order
from progress_broker.nodes.pool_settings import BLOCK_MS
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.nodes.run import exchange
from progress_broker.storage.connections import Reader
from progress_broker.storage.foreign import warn_once

MOVING_S = 0.1
"""How long until a feed that moves to another server is asked for again."""

EMPTY = b"0-0"
"""The position of an empty feed."""


class FeedConnection:
    """One dedicated connection: taking one from a pool for each command would cost 20 us more.

    After a disconnect it connects to the server that has the feeds then. It disconnects when a reply is late, or when
    the caller stops waiting for it.
    """

    def __init__(self, reader: Reader, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._reader, self._sleep = reader, sleep
        self._connection: Any = None

    async def request(self, command: bytes) -> Any:
        """Send an encoded command, and return the reply.

        While a feed moves to another server key by key, it can't be read, and nothing is published to it. So the
        command is sent again until the feed has moved (`MovedError`), or the move was given up.
        """
        if self._connection is None:
            self._connection = await self._reader.connect()
        while True:
            (reply,) = await exchange(self._connection, command, 1)
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                await self._sleep(MOVING_S)
                continue
            if isinstance(reply, Exception):
                raise reply
            return reply

    async def disconnect(self) -> None:
        """Disconnect, also after an error reply: the server may have stopped being the master, and still answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._reader.release(connection)

    async def last(self, feed: bytes) -> Sequence[Any] | None:
        """Return a feed's newest entry, if there is any."""
        try:
            with storage_errors():
                entries = await self.request(_command(b"XREVRANGE", feed, b"+", b"-", b"COUNT", b"1"))
        except Unreadable:  # this one key would make reading all feeds fail
            warn_once(feed.decode(), "another program has overwritten this feed with something else; it is deleted")
            await self.request(_command(b"DEL", feed))
            entries = []
        entry: Sequence[Any] | None = entries[0] if entries else None
        return entry

    async def has_all(self, positions: Mapping[bytes, bytes]) -> bool:
        """Whether feeds still have their entries at these positions."""
        for feed, at in positions.items():
            if at != EMPTY and not await self.request(_command(b"XRANGE", feed, at, at)):
                return False
        return True

    async def loss(self, feed: bytes, landmarks: Landmarks, last: Sequence[Any] | None, least_kept: int) -> Loss | None:
        """Return what a feed, which ends with an entry now, has lost of what was read of it."""
        newest = landmarks.newest
        if newest is None or (last is not None and Landmark.of(last) == newest):
            return None
        if not await self._has_lost(feed, newest, least_kept):
            return None
        shared = await self._newest_of(feed, landmarks)
        if shared is None:
            return Loss(a_minute_before(next(iter(landmarks)).position), newest.position, certain=False)
        return Loss(shared, newest.position)

    async def _has_lost(self, feed: bytes, landmark: Landmark, least_kept: int) -> bool:
        """Whether a feed has lost an entry, other than by trimming (see `was_lost`)."""
        entries = await self.request(_command(b"XREVRANGE", feed, landmark.position, b"-", b"COUNT", b"1"))
        if entries:
            return Landmark.of(entries[0]) != landmark
        return bool(await self.request(_command(b"XLEN", feed)) < least_kept)

    async def _newest_of(self, feed: bytes, landmarks: Landmarks) -> bytes | None:
        """Return the position of the newest landmark that a feed has; None if it has none of them.

        It has all that is older, unless it was trimmed, and nothing that is newer.
        """
        oldest = await self.request(_command(b"XRANGE", feed, b"-", b"+", b"COUNT", b"1"))
        left = [it for it in landmarks if order(it.position) >= order(oldest[0][0])] if oldest else []
        low, high = 0, len(left)  # it has those before `low`, and none from `high` on
        while low < high:
            middle = (low + high) // 2
            position = left[middle].position
            entries = await self.request(_command(b"XRANGE", feed, position, position))
            if entries and Landmark.of(entries[0]) == left[middle]:
                low = middle + 1
            else:
                high = middle
        return left[low - 1].position if low else None

    async def trimmed_past(self, feed: bytes, position: bytes) -> bool:
        """Whether a feed keeps no entry up to a position any more. Then entries after it may have been trimmed, too."""
        return not await self.request(_command(b"XREVRANGE", feed, position, b"-", b"COUNT", b"1"))


def xread_of(feeds: Collection[bytes], count: int) -> bytes:
    """Return the start of an encoded blocking XREAD of these feeds; their positions must follow."""
    words = (b"XREAD", b"COUNT", b"%d" % count, b"BLOCK", b"%d" % BLOCK_MS, b"STREAMS", *feeds)
    return b"*%d\r\n%b" % (len(words) + len(feeds), packed(words))


def packed(words: Iterable[bytes]) -> bytes:
    """Return words in Redis' protocol. The client library would need 15 us more per read for this."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(words), packed(words))
