"""Missed: operations that a bundle was not told of, or wrongly, while a feed was interrupted."""

import asyncio
import logging
from collections.abc import Sequence

from broker.bundle import Bundle
from broker.errors import StorageFull, StorageUnavailable
from broker.feed import backoff_s
from broker.finding import Found
from broker.lane import Lane
from broker.positions import order
from broker.search import Search
from broker.stream import Mode
from broker.tasks import Tasks

log = logging.getLogger(__name__)


class Missed:
    """Looks again for what bundles follow, until Redis has answered."""

    def __init__(self, search: Search, tasks: Tasks) -> None:
        self._search, self._tasks = search, tasks

    def look(self, bundle: Bundle, lane: Lane) -> None:
        """Look for operations of a lane that were not heard of."""
        self._look(bundle, lane, [], lost=False)

    def look_anew(self, bundle: Bundle, lane: Lane, position: bytes) -> None:
        """Begin a lane anew at a position: storage has lost what was told."""
        before = bundle.merge.emptied(lane)
        lane.lose(position)
        lane.unopened.update(before)
        self._look(bundle, lane, before, lost=True)

    def _look(self, bundle: Bundle, lane: Lane, before: Sequence[str], *, lost: bool) -> None:
        lane.busy += 1
        self._tasks.spawn(self._follow(bundle, lane, before, lost=lost))

    async def _follow(self, bundle: Bundle, lane: Lane, before: Sequence[str], *, lost: bool) -> None:
        try:
            found = await self._find(bundle, lane)
        except Exception:
            log.exception("the operations that a stream follows can't be looked for; its client is sent away")
            bundle.close("storage-unavailable", reconnect=True)
            return
        for facts in found.facts:
            again, at = facts.operation in before, order(lane.position)
            if again or not (facts.done and order(facts.position) <= at):
                if lost:
                    bundle.merge.begin_anew(lane, facts.operation)
                known = not lost and order(facts.first) <= at
                bundle.follow(facts, lane.number, lane.position if known else None, "lost" if again else None)
        for name in set(before) - {facts.operation for facts in found.facts}:
            bundle.merge.told(lane, name)
            bundle.missing(name, "gone")
        lane.busy -= 1
        bundle.stir(lane)

    async def _find(self, bundle: Bundle, lane: Lane) -> Found:
        tries = 0
        while bundle.mode is not Mode.CLOSED:
            try:
                return await self._search.find(bundle, (lane.number,), {lane.number: lane.position})
            except (StorageUnavailable, StorageFull):
                await asyncio.sleep(backoff_s(tries))
                tries += 1
        return Found([])
