"""Follows the feeds of a source: brings the operations of each batch to what they are there, and adds its entries."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from progress_broker.errors import Conflict, StorageFull, StorageUnavailable, StorageUnsuitable, rejection
from progress_broker.live.feeds.connection import EMPTY, FeedConnection, packed, xread_of
from progress_broker.model.position import order
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.runtime.backoff import backoff_s
from progress_broker.storage.connections import Reader
from progress_broker.storage.foreign import readable
from progress_broker.storage.scripts import MIRROR_FEED
from progress_broker.transfer.redis.mirror import Mirror

COUNT = 200
"""Maximum entries per feed and read."""
_ENTRIES, _BYTES = 100, 256 * 1024
"""About how much one call of Redis stores."""

Entry = Sequence[Any]
"""`[id, [field, value, …]]`."""


class LaneCopy:
    """How far the copy of a lane's feed is."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.at = EMPTY
        """The position of the last entry."""
        self.lock = asyncio.Lock()
        """Held while anything is written to the lane."""
        self.doubtful = False
        """Whether the answer to the last write was lost, so that it may have more."""
        self.gap = False
        """Whether entries are missing in it."""
        self._next = EMPTY  # the last one of what is being added

    @property
    def begun(self) -> bool:
        """Whether it has entries."""
        return self.at != EMPTY

    def begin(self, entry: Entry) -> None:
        """Take over what a copy before has done."""
        self.at = self._next = entry[0]

    def is_before(self, position: bytes) -> bool:
        """Whether it lacks the entry at a position."""
        return order(self.at) < order(position)

    def is_past(self, position: bytes) -> bool:
        """Whether it has had more than there is up to a position."""
        return order(self.at) > order(position)

    def adds(self, position: bytes) -> None:
        """Say what is about to be added, up to a position."""
        self.doubtful, self._next = True, position

    def added(self) -> None:
        """Say that it was added."""
        self.doubtful, self.at = False, self._next

    def settle(self, entry: Entry) -> bool:
        """Take what it ends with, and return whether it has lost entries; raise `Conflict` if they are not ours."""
        lost = self.is_past(entry[0])
        if not lost and entry[0] not in (self.at, self._next):
            raise Conflict(
                f"another program writes to the copy: lane {self.number} ends with {entry[0].decode()}, which is not of"
                " the source. End what uses it, empty it, and begin again"
            )
        self.doubtful, self.at, self._next = False, entry[0], entry[0]
        return lost


class Follower:
    """Follows the feeds that one connection can read."""

    def __init__(
        self,
        source: Store,
        target: Store,
        mirror: Mirror,
        reader: Reader,
        lanes: Sequence[LaneCopy],
        lost: Callable[[LaneCopy, str, bool], None],
        interrupted: Callable[[str], None],
    ) -> None:
        self._source, self._target, self._mirror = source, target, mirror
        self._lost, self._interrupted = lost, interrupted
        self._connection = FeedConnection(reader)
        self._lanes = {source.keyspace.lane(number).feed.encode(): lanes[number] for number in reader.lanes}
        self._xread = xread_of(self._lanes, COUNT)
        self._many = min(COUNT, source.settings.feed_length)
        self._lengths: dict[int, int] = {}  # of feeds, by lane

    async def run(self) -> None:
        """Follow until cancelled. Raises `Conflict` if another program writes to the copy."""
        tries = 0
        try:
            while True:
                try:
                    with storage_errors():
                        await self._resume()
                        while True:
                            await self._step()
                            tries = 0
                except StorageUnsuitable:
                    raise
                except (StorageUnavailable, StorageFull) as error:
                    self._interrupted(error.detail)
                    await self._connection.disconnect()
                    await asyncio.sleep(backoff_s(tries))
                    tries += 1
        finally:
            await self._connection.disconnect()

    async def _resume(self) -> None:
        """Find out where the copies end, and whether the source still has what follows."""
        lanes = list(self._lanes.values())
        for lane, entry in zip(lanes, await newest(self._target, lanes), strict=True):
            async with lane.lock:
                if lane.settle(entry):
                    self._lost(lane, "the target has lost what was copied", False)
        for (feed, lane), length in zip(self._lanes.items(), await _lengths(self._source, lanes), strict=True):
            self._lengths[lane.number] = max(length, self._source.settings.feed_length)
            if lane.begun and not await self._connection.has_all({feed: lane.at}):
                where = f"the entry {lane.at.decode()}, where the copy ends"
                if await self._was_trimmed(feed, lane):
                    self._lost(lane, f"its feed no longer has {where}", True)
                else:
                    await self._begin_anew(lane)
                    self._lost(lane, f"the source has lost {where}, as after a failover", False)

    async def _was_trimmed(self, feed: bytes, lane: LaneCopy) -> bool:
        """Whether a feed, which does not have the last entry of its copy, has only later ones."""
        last = await self._connection.last(feed)
        return last is not None and lane.is_before(last[0]) and await self._connection.trimmed_past(feed, lane.at)

    async def _begin_anew(self, lane: LaneCopy) -> None:
        """Remove the copy of a feed, which has entries that the source does not have any more."""
        async with lane.lock:
            await self._target.connections.commands.delete(self._target.keyspace.lane(lane.number).feed)
            lane.begin((EMPTY, []))

    async def _step(self) -> None:
        """Read what follows, and copy it."""
        if any(lane.doubtful for lane in self._lanes.values()):
            raise StorageUnavailable("the source or the target has lost events, as after a failover")
        positions = [lane.at for lane in self._lanes.values()]
        reply = await self._connection.request(self._xread + packed(positions))
        for feed, entries in reply or ():
            lane = self._lanes[feed]
            if len(entries) >= self._many and lane.begun and await self._connection.trimmed_past(feed, lane.at):
                self._lost(lane, "entries of its feed were trimmed before they were read", True)
        work = [self._copy(self._lanes[feed], entries) for feed, entries in reply or ()]
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _copy(self, lane: LaneCopy, entries: Sequence[Entry]) -> None:
        """Bring the operations of entries to what the source has, and then add the entries."""
        async with lane.lock, unless_lost(self._target, lane):
            await self._mirror.bring(operations_of(entries), lane.at)
            for part in parts_of(entries):
                await self._add(lane, part)

    async def _add(self, lane: LaneCopy, entries: Sequence[Entry]) -> None:
        args: list[str | bytes] = ["FEED", str(self._lengths[lane.number]), "IF_FEED", lane.at]
        for position, fields in entries:
            args += ("ENTRY", position, str(len(fields)), *fields)
        lane.adds(entries[-1][0])
        call = Call(MIRROR_FEED, (self._target.keyspace.lane(lane.number).feed,), args)
        reply = await self._target.connections.queue.run(call)
        if reply[0] != b"ok":
            raise rejection(reply[0].decode(), reply[1].decode("utf-8", "replace"))
        lane.added()


@asynccontextmanager
async def unless_lost(target: Store, lane: LaneCopy) -> AsyncGenerator[None]:
    """Raise `StorageUnavailable` in place of a `Conflict` if a target that has lost entries is the reason.

    The follower of the lane goes back then.
    """
    try:
        yield
    except Conflict:
        [entry] = await newest(target, [lane])
        if not lane.is_past(entry[0]):
            raise
        lane.doubtful = True
        raise StorageUnavailable("the target has lost what was copied, as after a failover") from None


async def newest(store: Store, lanes: Sequence[LaneCopy]) -> list[Entry]:
    """Return the last entry of the feed of each lane; one without fields at `0-0` if it has none."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            pipeline.xrevrange(store.keyspace.lane(lane.number).feed, count=1)
        with storage_errors():
            replies = readable(await pipeline.execute(raise_on_error=False))
    return [reply[0] if reply else (EMPTY, []) for reply in replies]


async def _lengths(store: Store, lanes: Sequence[LaneCopy]) -> list[int]:
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            pipeline.xlen(store.keyspace.lane(lane.number).feed)
        with storage_errors():
            return [reply or 0 for reply in readable(await pipeline.execute(raise_on_error=False))]


def operations_of(entries: Sequence[Entry]) -> list[str]:
    """Return the operations that entries of a feed are about. What is internal names none."""
    names = {fields[at + 1] for _, fields in entries for at in range(0, len(fields) - 1, 2) if fields[at] == b"o"}
    return [name.decode("utf-8", "replace") for name in names]


def parts_of(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield entries in parts that one call may add."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        part.append(entry)
        size += sum(map(len, entry[1]))
        if len(part) >= _ENTRIES or size >= _BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
