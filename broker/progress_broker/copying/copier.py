"""Makes a copy of a Redis in another one, and follows what changes.

A copy is in one of these states; each one can break off anywhere, and to start `copy` again goes on:

1. *Claimed*: the target is empty, or has a copy that was begun before; no server uses it, and no other `copy` runs. A
   mark in its meta key says that it is a copy. Without the mark, a target that is not empty is rejected.
2. *Following*: the feeds are read from where the target's end, from their beginning at first. Of each batch, the
   operations are brought to what the source has by then, and after that the entries are added under their own IDs. So
   what the target's feeds have, its operations have, too: where a feed ends is where to go on.
3. *Passing*, beside that: all operations of the source are looked at. It finds what the feeds no longer tell. It is
   repeated if a feed was trimmed, or has lost entries, before they were read.
4. *Cut over* (`cut_over.py`): nobody writes to the source any more, and a last pass over both finds no difference. The
   mark is removed; from then on the target is a Redis like others.

Operations of a copy have no lease, so nobody takes their workers for dead, and the scripts reject each write of ours
after a write of somebody else.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from progress_broker.copying.claim import Claim
from progress_broker.copying.following import Follower, LaneCopy, newest, unless_lost
from progress_broker.errors import StorageFull, StorageUnavailable, StorageUnsuitable
from progress_broker.model.position import milliseconds
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.runtime.backoff import backoff_s
from progress_broker.runtime.tasks import end
from progress_broker.storage.foreign import warn_once
from progress_broker.transfer.redis.mirror import Mirror
from progress_broker.transfer.redis.source import ids_of

log = logging.getLogger(__name__)

CAUGHT_UP_S = 0.2
"""How often to look whether the copy has caught up."""
AGAIN_S = 1.0
"""After how long a pass that broke off is begun again."""
_TOLD_S = 10.0
"""How long after an interruption was told another one counts as the same."""
_AT_ONCE = 25
"""How many operations of a lane a pass looks at while the lane's follower waits."""

T = TypeVar("T")


class Copier:
    """Copies a Redis to another one, which has as many lanes. Use it within `claimed`."""

    def __init__(self, source: Store, target: Store) -> None:
        self.source, self.target = source, target
        self.mirror = Mirror(source, target)
        self.lanes = [LaneCopy(number) for number in range(source.keyspace.lanes)]
        self.looked = self.copied = 0
        """How many operations this pass or the last one has looked at, and how many differed in all passes."""
        self.passed = asyncio.Event()
        """Set while no pass is due."""
        self._due = asyncio.Event()
        self._due.set()
        self._claim = Claim(source, target)
        self._told_until = 0.0

    @asynccontextmanager
    async def claimed(self) -> AsyncGenerator[None]:
        """Claim the target, and find where its feeds end. Raises `Conflict` if it can't become a copy of the source."""
        async with self._claim.held():
            for lane, entry in zip(self.lanes, await newest(self.target, self.lanes), strict=True):
                lane.begin(entry)
            yield

    async def unmark(self) -> None:
        """Make the target a Redis like others."""
        await self._claim.unmark()

    async def following(self, work: Coroutine[Any, Any, T]) -> T:
        """Follow the source while `work` is done, and return its result. Raises `Conflict` if it can't go on."""
        readers = self.source.connections.readers(self.source.keyspace)
        followers = [
            Follower(self.source, self.target, self.mirror, reader, self.lanes, self._lost, self._interrupted)
            for reader in readers
        ]
        main = asyncio.create_task(work)
        others = [asyncio.create_task(each) for each in (*(it.run() for it in followers), self._pass())]
        try:
            await asyncio.wait((main, *others), return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                if task.done():  # with an error, as they go on for ever
                    task.result()
            return await main
        finally:
            await end(main, *others)
            await asyncio.gather(main, *others, return_exceptions=True)  # one error is told, and asyncio logs no others

    async def caught_up(self) -> None:
        """Wait until the copy has all that the source has at one moment, and all operations were looked at."""
        await self.passed.wait()
        ends = await self.ends()
        while not self.passed.is_set() or any(  # noqa: ASYNC110 - of two servers, none tells the other
            lane.doubtful or lane.is_before(last) for lane, last in zip(self.lanes, ends, strict=True)
        ):
            await asyncio.sleep(CAUGHT_UP_S)

    async def ends(self) -> list[bytes]:
        """Return the last positions of the feeds at the source."""
        entries = await retried(lambda: newest(self.source, self.lanes))
        return [entry[0] for entry in entries]

    async def lag_s(self) -> float:
        """Return how far the lane that is last is behind the source, in seconds; 0 if all have all."""
        ends = await self.ends()
        behind = [
            milliseconds(last) - milliseconds(lane.at)
            for lane, last in zip(self.lanes, ends, strict=True)
            if lane.is_before(last) and lane.begun
        ]
        return max(0, *behind, 0) / 1000

    async def compare(self) -> int:
        """Look at all operations of both, and bring those that differ to what the source has; return their number."""
        before = self.copied
        for store in (self.source, self.target):
            await self._look(store)
        return self.copied - before

    async def agrees(self, ends: Sequence[bytes]) -> bool:
        """Return whether the feeds of the target end as those of the source did. Followers look at those that don't."""
        for lane, entry, last in zip(
            self.lanes, await retried(lambda: newest(self.target, self.lanes)), ends, strict=True
        ):
            lane.doubtful = lane.doubtful or not entry[0] == lane.at == last
        return not any(lane.doubtful for lane in self.lanes)

    @property
    def lost(self) -> list[int]:
        """The lanes whose feed has gaps. Streams of many operations that are before one of them begin anew."""
        return [lane.number for lane in self.lanes if lane.gap]

    def _lost(self, lane: LaneCopy, why: str, gap: bool) -> None:
        if not self._due.is_set():  # one line for all lanes
            log.warning("lane %d: %s; operations are looked at again", lane.number, why)
        lane.gap = lane.gap or gap
        self.passed.clear()
        self._due.set()

    def _interrupted(self, why: str) -> None:
        now = time.monotonic()
        if now > self._told_until:  # one line for all lanes, and for all tries
            log.warning("the copy is interrupted, and goes on later: %s", why)
        self._told_until = now + _TOLD_S

    async def _pass(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await self._look(self.source)
            if not self._due.is_set():
                self.passed.set()

    async def _look(self, store: Store) -> None:
        """Look at the operations that a side has. A side that is unavailable is waited for."""
        while True:
            self.looked = 0
            try:
                async for ids in ids_of(store, Filters()):
                    for lane, some in self._by_lane(ids):
                        self.copied += await retried(partial(self._bring, lane, some))
                        self.looked += len(some)
                return
            except StorageUnsuitable:
                raise
            except (StorageUnavailable, StorageFull) as error:
                warn_once("the copy goes on later", error.detail)
                await asyncio.sleep(AGAIN_S)

    async def _bring(self, lane: LaneCopy, ids: Sequence[str]) -> int:
        async with lane.lock:
            if lane.doubtful:  # its follower finds out where it ends
                raise StorageUnavailable(f"lane {lane.number} can't be written to now")
            async with unless_lost(self.target, lane):
                return await self.mirror.bring(ids, lane.at)

    def _by_lane(self, ids: Iterable[str]) -> Iterator[tuple[LaneCopy, list[str]]]:
        groups: dict[int, list[str]] = {}
        for id in ids:
            groups.setdefault(self.source.keyspace.lane_of(id), []).append(id)
        for number, some in groups.items():
            for at in range(0, len(some), _AT_ONCE):
                yield self.lanes[number], some[at : at + _AT_ONCE]


async def retried(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of `ask`, once both sides answer. Raises what no waiting helps against."""
    tries = 0
    while True:
        try:
            return await ask()
        except StorageUnsuitable:
            raise
        except (StorageUnavailable, StorageFull) as error:
            warn_once("the copy goes on later", error.detail)
        await asyncio.sleep(backoff_s(tries))
        tries += 1
