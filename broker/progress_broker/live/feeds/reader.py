"""The feed reader: one blocking XREAD over the feeds of several lanes, independent of the number of operations.

It has all lanes if one server has them. In a Cluster a read can name the keys of one slot: each lane has a reader.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import redis.exceptions

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.history.losses import Loss
from progress_broker.live.feeds.batch import Batch, Begun
from progress_broker.live.feeds.connection import EMPTY, FeedConnection, packed, xread_of
from progress_broker.live.feeds.feed_log import FeedLog
from progress_broker.live.feeds.landmarks import Landmarks
from progress_broker.live.feeds.pace import Pace
from progress_broker.model.event import Event, read_entry
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.runtime.backoff import backoff_s
from progress_broker.storage.connections import Reader
from progress_broker.storage.keys import Keyspace

COUNT = 500
"""Maximum entries per feed and read. It limits the size of a reply, and the time that its delivery takes."""

MOVES = 3
"""How often in a row feeds may have moved, as while servers do not agree yet who has them."""

LATE_S = 0.02
"""A reader that comes back later than this checks that its feeds were not trimmed past it in between."""


class FeedReader:
    """Reads the feeds of several lanes over one connection."""

    def __init__(
        self,
        reader: Reader,
        keyspace: Keyspace,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        least_kept: int = 0,
        log: FeedLog | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.lanes = reader.lanes
        self.connected = False
        self.tried = asyncio.Event()
        """Set once the first connection failed, or the first batch was delivered."""
        self.reads = self.interruptions = self.moves = 0
        self.answered_at = clock()
        """When Redis last replied, by the clock."""
        self.positions: dict[bytes, bytes] = {}
        """The last position that was read of each feed."""
        self._connection = FeedConnection(reader, sleep)
        self._lanes = {keyspace.lane(lane).feed.encode(): lane for lane in reader.lanes}
        self._landmarks = {feed: Landmarks() for feed in self._lanes}
        self._begun: Begun | None = None  # until it has been delivered
        self._least_kept = least_kept
        self._many = min(COUNT, least_kept or COUNT)  # with so many new entries, older ones may have been trimmed
        self._clock, self._sleep = clock, sleep
        self._log, self._pace = log or FeedLog(), pace or Pace()
        self._xread = xread_of(self._lanes, COUNT)

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield what is published from now on, endlessly. The first batch, and each after a reconnect, is a resync."""
        self.connected, tries = False, 0
        while True:
            try:
                with storage_errors():
                    batch = await (self._go_on() if self.connected else self._begin())
            except (StorageUnavailable, StorageFull, Unreadable) as error:
                if tries == 0:
                    self.interruptions += 1
                    self._log.interrupted(self.lanes, error)
                self.connected = False
                self.tried.set()
                await self._connection.disconnect()
                await self._sleep(backoff_s(tries))
                tries += 1
                continue
            except Exception:
                await self._connection.disconnect()
                raise
            if not self.connected:
                self._log.reconnected(self.lanes, tries)
                self.connected, tries = True, 0
            yield batch

    async def _go_on(self) -> Batch:
        """Read what follows; after feeds have moved to another server, there."""
        read = self._read
        for _ in range(MOVES):
            try:
                return await read()
            except redis.exceptions.MovedError:
                await self._connection.disconnect()
                self.moves += 1
                read = self._read_on
        return await read()

    async def _read_on(self) -> Batch:
        """Read at another server. Some say that feeds moved also after a failover, which may have lost entries."""
        return await (self._read if await self._connection.has_all(self.positions) else self._begin)()

    async def _begin(self) -> Batch:
        """Continue from the end of the feeds, and find which of them have lost entries that were delivered."""
        # Always the real last IDs of the feeds, never `$`: every call would resolve that again and could skip entries.
        self.answered_at = self._clock()
        last = {feed: await self._connection.last(feed) for feed in self._lanes}
        losses: dict[bytes, Loss] = {}
        for feed, landmarks in self._landmarks.items():
            if (loss := await self._connection.loss(feed, landmarks, last[feed], self._least_kept)) is not None:
                losses[feed] = loss
        self.positions = {feed: EMPTY if entry is None else entry[0] for feed, entry in last.items()}
        self._begun = Begun(last, losses)
        return Batch([], tuple(self._lanes.values()), {self._lanes[feed]: loss for feed, loss in losses.items()})

    @property
    def up_to_date(self) -> bool:
        """Whether it reads, and what it found when it connected, such as a loss, was delivered."""
        return self.connected and self._begun is None

    def delivered(self) -> None:
        """Remember where the feeds went on: the last batch has been delivered."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.remember(self._landmarks)

    async def _read(self) -> Batch:
        early_s, positions = self._pace.early_s(self._clock()), self.positions
        if early_s > 0:
            await self._sleep(early_s)
        late = self._clock() - self.answered_at > LATE_S
        reply = await self._connection.request(self._xread + packed(positions.values()))
        self.answered_at = self._clock()
        self.reads += 1
        self._pace.read(self.answered_at, news=bool(reply))
        events, resync = list[Event](), list[int]()
        for feed, entries in reply or ():
            before, positions[feed] = positions[feed], entries[-1][0]
            self._landmarks[feed].add(entries[-1])
            events += [event for entry in entries if (event := read_entry(None, entry)) is not None]
            suspect = len(entries) >= self._many or (late and before != EMPTY)
            if suspect and await self._connection.trimmed_past(feed, before):
                resync.append(self._lanes[feed])
        return Batch(events, tuple(resync))
