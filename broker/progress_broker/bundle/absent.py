"""Lanes that could not be reached when a bundle was opened. Each begins once its feed is read."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.discovery import begin
from progress_broker.bundle.lane import Lane
from progress_broker.bundle.search import Search
from progress_broker.model.index_terms import Found
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.stream.stream import Mode

log = logging.getLogger(__name__)

T = TypeVar("T")

Restarted = Callable[[Mapping[int, LanePosition]], Coroutine[Any, Any, Mapping[int, LanePosition]]]
"""Returns positions of clients, with a restart for those that Redis has lost."""


class AbsentLanes:
    """Begins lanes of bundles late."""

    def __init__(self, search: Search, tasks: Tasks, restarted: Restarted) -> None:
        self._search, self._tasks, self._restarted = search, tasks, restarted
        self._beginning: set[tuple[Bundle, int]] = set()

    def begin(self, bundle: Bundle, number: int) -> None:
        """Begin an absent lane, whose feed is read from now on."""
        if (bundle, number) not in self._beginning:
            self._beginning.add((bundle, number))
            self._tasks.spawn(self._begin(bundle, number))

    async def _begin(self, bundle: Bundle, number: int) -> None:
        try:
            lane = await self._lane(bundle, number)
            with bundle.merge.searching([number]):
                await self._follow(bundle, lane)
            del bundle.merge.absent[number]
        except Exception:
            log.exception("beginning a lane of a stream failed; its client is disconnected")
            bundle.close("storage-unavailable", reconnect=True)
            return
        finally:
            self._beginning.discard((bundle, number))
        bundle.mark_dirty(lane)

    async def _lane(self, bundle: Bundle, number: int) -> Lane:
        """Begin the lane at the client's position, or where its feed is."""
        start = bundle.merge.absent[number]
        if start is not None:
            positions = {number: start}
            start = (await self._ask(bundle, lambda: self._restarted(positions)) or positions)[number]
        return bundle.merge.lane(number, start)

    async def _follow(self, bundle: Bundle, lane: Lane) -> None:
        """Follow the lane's operations, and tell which of those that were named are missing."""
        number = lane.number
        found = await self._ask(bundle, lambda: self._search.find(bundle, (number,), {number: lane.since}))
        found = found or Found([])
        if bundle.mode is Mode.CLOSED:
            return
        begin(bundle, found.operations, self._search.lane_of)
        appeared = bundle.merge.ids() - found.gone.keys()  # while they were searched for
        existing = appeared.union(indexed.operation for indexed in found.operations)
        for id in bundle.query.ids:
            if self._search.lane_of(id) == number and id not in existing:
                if id in found.gone:
                    bundle.merge.forget(id)
                else:
                    bundle.awaited.add(id)
                bundle.missing(id, "gone" if id in found.gone else "not-found")

    async def _ask(self, bundle: Bundle, ask: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        return await until_back(ask, wanted=lambda: bundle.mode is not Mode.CLOSED)
