"""Missed: operations that a bundle was not told of, or wrongly, while a feed was interrupted."""

import logging
from collections.abc import Sequence

from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.lane import Lane
from progress_broker.bundle.merge import Searching
from progress_broker.bundle.search import Search
from progress_broker.model.index_terms import Facts, Found
from progress_broker.model.position import order
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.stream.stream import Mode

log = logging.getLogger(__name__)


class Missed:
    """Looks again for what bundles follow, until Redis has answered."""

    def __init__(self, search: Search, tasks: Tasks) -> None:
        self._search, self._tasks = search, tasks

    def look(self, bundle: Bundle, lane: Lane) -> None:
        """Look for operations of a lane that were not heard of."""
        self._look(bundle, lane, lane.position, [], lost=False)

    def look_again(self, bundle: Bundle, lane: Lane, position: bytes) -> None:
        """Begin a lane again with snapshots: storage has lost what came after a position."""
        before = bundle.merge.restart(lane, position)
        self._look(bundle, lane, lane.since, before, lost=True)

    def _look(self, bundle: Bundle, lane: Lane, since: bytes, before: Sequence[str], *, lost: bool) -> None:
        searching = bundle.merge.searching([lane.number])
        self._tasks.spawn(self._follow(bundle, lane, since, before, searching, lost=lost))

    async def _follow(
        self, bundle: Bundle, lane: Lane, since: bytes, before: Sequence[str], searching: Searching, *, lost: bool
    ) -> None:
        with searching:
            try:
                found = await self._find(bundle, lane, since)
            except Exception:
                log.exception("the operations that a stream follows can't be looked for; its client is sent away")
                bundle.close("storage-unavailable", reconnect=True)
                return
            for facts in found.facts:
                again = facts.operation in before
                if again or not (facts.done and order(facts.position) <= order(since)):
                    self._follow_found(bundle, lane, facts, lost=lost)
            for name in set(before) - {facts.operation for facts in found.facts}:
                bundle.merge.told(lane, name)
                bundle.missing(name, "gone")
        bundle.stir(lane)

    def _follow_found(self, bundle: Bundle, lane: Lane, facts: Facts, *, lost: bool) -> None:
        if lost:
            bundle.merge.needs_snapshot(lane, facts.operation)
        known = not lost and order(facts.first) <= order(lane.position)
        bundle.follow(facts, lane.number, lane.position if known else None, "lost" if lost else None)

    async def _find(self, bundle: Bundle, lane: Lane, since: bytes) -> Found:
        found = await until_back(
            lambda: self._search.find(bundle, (lane.number,), {lane.number: since}),
            wanted=lambda: bundle.mode is not Mode.CLOSED,
        )
        return found or Found([])
