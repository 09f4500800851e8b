"""The connection that feeds are read by: a reader's own, with commands packed by hand, as this is the live path."""

from collections.abc import Collection, Iterable
from typing import Any

from progress_broker.errors import Unreadable
from progress_broker.model.position import order, was_lost
from progress_broker.storage.connections import BLOCK_MS
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.redis_errors import storage_errors

_EMPTY = b"0-0"
"""Where a feed stands that has no entry."""


class FeedConnection:
    """One connection, ours alone, as taking one from the pool for each command costs another 20 us.

    It makes itself anew when it was cut, and cuts itself when a reply is late or no longer waited for.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection: Any = None

    async def ask(self, command: bytes) -> Any:
        """Send a command that is packed, and return the reply."""
        if self._connection is None:
            self._connection = await self._pool.get_connection()
        await self._connection.send_packed_command(command, check_health=False)
        return await self._connection.read_response()

    async def disconnect(self) -> None:
        """Begin anew, also after an error that the server replied with: it may not be the master, and still answer."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def last(self, feed: bytes) -> bytes:
        """Return where a feed's newest entry stands."""
        try:
            with storage_errors():
                entries = await self.ask(_command(b"XREVRANGE", feed, b"+", b"-", b"COUNT", b"1"))
        except Unreadable:  # the one key would stop the reading of all
            warn_once(feed.decode(), "another program wrote something else than a feed there; it is deleted")
            await self.ask(_command(b"DEL", feed))
            entries = []
        position: bytes = entries[0][0] if entries else _EMPTY
        return position

    async def has_lost(self, feed: bytes, position: bytes, last: bytes, least_kept: int) -> bool:
        """Whether a feed that ends at `last` has lost an entry that it held at a position (see `was_lost`)."""
        if position in (last, _EMPTY):
            return False
        entries = await self.ask(_command(b"XREVRANGE", feed, position, b"-", b"COUNT", b"1"))
        length = await self.ask(_command(b"XLEN", feed))
        return was_lost(position, entries[0][0] if entries else None, length, least_kept)

    async def trimmed_past(self, feed: bytes, first: bytes) -> bool:
        """Whether a feed begins with the first entry we were given, so that others may have been before it."""
        entries = await self.ask(_command(b"XRANGE", feed, b"-", b"+", b"COUNT", b"1"))
        return not entries or order(entries[0][0]) >= order(first)


def xread_of(feeds: Collection[bytes], count: int) -> bytes:
    """Return the blocking XREAD of these feeds, up to where their positions follow."""
    words = (b"XREAD", b"COUNT", b"%d" % count, b"BLOCK", b"%d" % BLOCK_MS, b"STREAMS", *feeds)
    return b"*%d\r\n%b" % (len(words) + len(feeds), packed(words))


def packed(words: Iterable[bytes]) -> bytes:
    """Return words as Redis' protocol has them; to have the client do it would add 15 us to each read."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(words), packed(words))
