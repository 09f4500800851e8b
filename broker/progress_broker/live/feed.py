"""The feed reader: a replica's one blocking XREAD over its lanes' feeds, whatever the number of operations watched."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.event import Event, read_entry
from progress_broker.model.position import order, was_lost
from progress_broker.runtime.backoff import backoff_s
from progress_broker.storage.connections import BLOCK_MS, Reader
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.redis_errors import storage_errors

log = logging.getLogger(__name__)

COUNT = 500
"""Entries taken from each feed at a time: a reply is bounded, and so is the time that handing it on takes."""

READ_EVERY_S = 0.002
"""The least time from a reply to the next read. A wake-up costs as much as handing on ten events or more, so under load
each is to bring many: with 10,000 events/s that come evenly this takes a third off what one costs. What comes after a
silence does not wait, as a read is under way by then."""

_EMPTY = b"0-0"
"""Where a feed stands that has no entry."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a read brought. Of the lanes to `resync` something may have been missed: read their logs again."""

    events: list[Event]
    resync: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    """Those of them whose feed no longer holds what it had brought: storage has lost some history."""


class FeedReader:
    """Follows the feeds of the lanes that one connection can follow."""

    def __init__(
        self,
        reader: Reader,
        keyspace: Keyspace,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        least_kept: int = 0,
    ) -> None:
        self.connected = False
        self.reads = self.interruptions = 0
        self.answered_at = clock()
        """When Redis last answered, by the clock."""
        self.positions: dict[bytes, bytes] = {}
        """Up to where each feed was read."""
        self._handed_on: dict[bytes, bytes] | None = None  # up to where it was when the feed was interrupted
        self._pool: Any = reader.redis.connection_pool
        self._connection: Any = None
        self._lanes = {keyspace.lane(lane).feed.encode(): lane for lane in reader.lanes}
        self._least_kept = least_kept
        self._clock = clock
        self._sleep = sleep
        self._read_at = clock() - READ_EVERY_S
        words = (b"XREAD", b"COUNT", b"%d" % COUNT, b"BLOCK", b"%d" % BLOCK_MS, b"STREAMS", *self._lanes)
        self._xread = b"*%d\r\n%b" % (len(words) + len(self._lanes), _packed(words))

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield what is published from now on, for ever. The first batch, and each after a reconnect, is a resync."""
        self.connected = False
        tries = 0
        while True:
            try:
                with storage_errors():
                    if not self.connected:
                        batch = await self._begin()
                    else:
                        batch = await self._read(self.positions)
            except (StorageUnavailable, StorageFull, Unreadable) as error:
                if tries == 0:
                    self.interruptions += 1
                    log.warning("the feed is interrupted, reconnecting: %s", error)
                self.connected = False
                await self._disconnect()
                await self._sleep(backoff_s(tries))
                tries += 1
                continue
            except Exception:
                await self._disconnect()
                raise
            if not self.connected:
                self.connected = True
                if tries:
                    log.info("the feed is back after %d tries", tries)
                tries = 0
            yield batch
            if self.connected:
                self._handed_on = None

    async def _begin(self) -> Batch:
        """Go on from where the feeds end; tell which of them have lost what they had brought."""
        if self._handed_on is None:
            self._handed_on = dict(self.positions)
        # Always the feeds' real last IDs, never a `$`: that is resolved anew by every call.
        last = {feed: await self._last(feed) for feed in self._lanes}
        lost = [feed for feed, position in self._handed_on.items() if await self._has_lost(feed, position, last[feed])]
        self.positions = last
        return Batch([], tuple(self._lanes.values()), tuple(self._lanes[feed] for feed in lost))

    async def _has_lost(self, feed: bytes, position: bytes, last: bytes) -> bool:
        """Whether a feed that ends at `last` has lost an entry that it held at a position (see `was_lost`)."""
        if position in (last, _EMPTY):
            return False
        entries = await self._ask(_command(b"XREVRANGE", feed, position, b"-", b"COUNT", b"1"))
        length = await self._ask(_command(b"XLEN", feed))
        return was_lost(position, entries[0][0] if entries else None, length, self._least_kept)

    async def _disconnect(self) -> None:
        # Also after an error that the server replied with: it may no longer be the master, and go on to answer.
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def _last(self, feed: bytes) -> bytes:
        try:
            with storage_errors():
                entries = await self._ask(_command(b"XREVRANGE", feed, b"+", b"-", b"COUNT", b"1"))
        except Unreadable:  # the one key would stop the reading of all
            warn_once(feed.decode(), "another program wrote something else than a feed there; it is deleted")
            await self._ask(_command(b"DEL", feed))
            entries = []
        position: bytes = entries[0][0] if entries else _EMPTY
        return position

    async def _read(self, positions: dict[bytes, bytes]) -> Batch:
        early_s = self._read_at + READ_EVERY_S - self._clock()
        if early_s > 0:
            await self._sleep(early_s)
        reply = await self._ask(self._xread + _packed(positions.values()))
        self._read_at = self.answered_at = self._clock()
        self.reads += 1
        events: list[Event] = []
        resync: list[int] = []
        for feed, entries in reply or ():
            positions[feed] = entries[-1][0]
            events += [event for entry in entries if (event := read_entry(None, entry)) is not None]
            if len(entries) == COUNT and await self._trimmed_past(feed, entries[0][0]):
                resync.append(self._lanes[feed])
        return Batch(events, tuple(resync))

    async def _trimmed_past(self, feed: bytes, first: bytes) -> bool:
        """Whether the feed begins with the first entry we were given, so that others may have been before it."""
        entries = await self._ask(_command(b"XRANGE", feed, b"-", b"+", b"COUNT", b"1"))
        return not entries or order(entries[0][0]) >= order(first)

    async def _ask(self, command: bytes) -> Any:
        # On a connection that is ours alone, as taking one from the pool for each command costs another 20 us. It makes
        # itself anew when it was cut, and cuts itself when a reply is late or no longer waited for.
        if self._connection is None:
            self._connection = await self._pool.get_connection()
        await self._connection.send_packed_command(command, check_health=False)
        return await self._connection.read_response()


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(words), _packed(words))


def _packed(words: Iterable[bytes]) -> bytes:
    """Return words as Redis' protocol has them; to have the client do it would add 15 us to each read."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
