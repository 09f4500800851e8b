"""The connection that reads the feeds. On the live path, commands are encoded here and not by the client library."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from redis.exceptions import AskError, MovedError

from progress_broker.errors import Unreadable
from progress_broker.model.position import was_lost
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

    async def last(self, feed: bytes) -> bytes:
        """Return the position of a feed's newest entry."""
        try:
            with storage_errors():
                entries = await self.request(_command(b"XREVRANGE", feed, b"+", b"-", b"COUNT", b"1"))
        except Unreadable:  # this one key would make reading all feeds fail
            warn_once(feed.decode(), "another program has overwritten this feed with something else; it is deleted")
            await self.request(_command(b"DEL", feed))
            entries = []
        position: bytes = entries[0][0] if entries else EMPTY
        return position

    async def lost(self, before: Mapping[bytes, bytes], last: Mapping[bytes, bytes], least_kept: int) -> list[bytes]:
        """Return the feeds, which end at `last`, that have lost the entry at the position before (see `was_lost`)."""
        return [feed for feed, at in before.items() if await self._has_lost(feed, at, last[feed], least_kept)]

    async def has_all(self, positions: Mapping[bytes, bytes]) -> bool:
        """Whether feeds still have their entries at these positions."""
        for feed, at in positions.items():
            if at != EMPTY and not await self.request(_command(b"XRANGE", feed, at, at)):
                return False
        return True

    async def _has_lost(self, feed: bytes, position: bytes, last: bytes, least_kept: int) -> bool:
        if position in (last, EMPTY):
            return False
        entries = await self.request(_command(b"XREVRANGE", feed, position, b"-", b"COUNT", b"1"))
        length = await self.request(_command(b"XLEN", feed))
        return was_lost(position, entries[0][0] if entries else None, length, least_kept)

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
