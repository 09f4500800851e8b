"""The feed reader: a replica's one blocking XREAD over its lanes' feeds, whatever the number of operations watched."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from broker.connections import BLOCK_MS, Reader, storage_errors
from broker.errors import StorageFull, StorageUnavailable
from broker.events import Event, read_entry
from broker.keys import Keyspace
from broker.positions import order

log = logging.getLogger(__name__)

COUNT = 500
"""Entries taken from each feed at a time: a reply is bounded, and so is the time that handing it on takes."""

BACKOFF_S = (0.05, 2.0)


def backoff_s(tries: int) -> float:
    """Return how long to wait before the next try: doubling from 50 ms to 2 s, with full jitter."""
    low, high = BACKOFF_S
    return random.uniform(low, min(high, low * 2 ** min(tries, 10)))


@dataclass(frozen=True, slots=True)
class Batch:
    """What a read brought. Of the lanes to `resync` something may have been missed: read their logs again."""

    events: list[Event]
    resync: tuple[int, ...] = ()


class FeedReader:
    """Follows the feeds of the lanes that one connection can follow."""

    def __init__(self, reader: Reader, keyspace: Keyspace) -> None:
        self.connected = False
        self._redis: Any = reader.redis
        self._lanes = {keyspace.lane(lane).feed.encode(): lane for lane in reader.lanes}

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield what is published from now on, for ever. The first batch, and each after a reconnect, is a resync."""
        positions: dict[bytes, bytes] = {}
        self.connected = False
        tries = 0
        while True:
            try:
                with storage_errors():
                    if not self.connected:
                        # Always the feeds' real last IDs, never a `$`: that is resolved anew by every call.
                        positions = {feed: await self._last(feed) for feed in self._lanes}
                        batch = Batch([], tuple(self._lanes.values()))
                    else:
                        batch = await self._read(positions)
            except (StorageUnavailable, StorageFull) as error:
                if tries == 0:
                    log.warning("the feed is interrupted, reconnecting: %s", error)
                self.connected = False
                await asyncio.sleep(backoff_s(tries))
                tries += 1
                continue
            if not self.connected:
                self.connected = True
                if tries:
                    log.info("the feed is back after %d tries", tries)
                tries = 0
            yield batch

    async def _last(self, feed: bytes) -> bytes:
        entries = await self._redis.xrevrange(feed, count=1)
        return entries[0][0] if entries else b"0-0"

    async def _read(self, positions: dict[bytes, bytes]) -> Batch:
        reply = await self._redis.execute_command(
            "XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", *positions, *positions.values()
        )
        events: list[Event] = []
        resync: list[int] = []
        for feed, entries in reply or ():
            positions[feed] = entries[-1][0]
            events.extend(event for entry in entries if (event := read_entry(None, entry)) is not None)
            if len(entries) == COUNT and await self._trimmed_past(feed, entries[0][0]):
                resync.append(self._lanes[feed])
        return Batch(events, tuple(resync))

    async def _trimmed_past(self, feed: bytes, first: bytes) -> bool:
        """Whether the feed begins with the first entry we were given, so that others may have been before it."""
        entries = await self._redis.xrange(feed, count=1)
        return not entries or order(entries[0][0]) >= order(first)
