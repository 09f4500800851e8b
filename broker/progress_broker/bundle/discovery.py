"""Finds the operations that a bundle follows: those that exist at its start, and those that it missed later."""

import logging
from collections.abc import Callable, Iterable, Sequence

from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.lane import Lane
from progress_broker.bundle.merge import SearchGuard
from progress_broker.bundle.search import Search
from progress_broker.errors import Ended, Gone, InvalidInput, NotFound
from progress_broker.model.index_terms import Found, IndexedOperation
from progress_broker.model.position import order
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.stream.stream import Mode

log = logging.getLogger(__name__)


class TooManyEnded(Exception):
    """More operations have ended during the client's absence than one stream may follow."""


def check_number(found: Found, most: int, *, resuming: bool) -> None:
    """Raise `InvalidInput` if there are more operations than a stream may follow.

    Raise `TooManyEnded` if there are too many only because of operations that ended during the client's absence.
    """
    if len(found.operations) <= most:
        return
    if resuming and sum(not indexed.done for indexed in found.operations) <= most:
        raise TooManyEnded
    raise InvalidInput(
        f"the query matches at least {len(found.operations)} operations, but one stream may follow at most {most}"
        " (max_operations_per_stream): use a narrower query, or open several streams",
        field="operation",
    )


def begin(bundle: Bundle, found: Iterable[IndexedOperation], lane_of: Callable[[str], int]) -> int:
    """Follow the found operations, from the client's position in their lane or with a snapshot.

    Return how many of them have ended, with an end that the client has received.
    """
    seen = 0
    for indexed in found:
        number = lane_of(indexed.operation)
        lane = bundle.merge.lane(number)
        ended = indexed.done and order(indexed.position) <= order(
            lane.since
        )  # its end was sent already, or is older than this stream
        if not lane.needs_snapshots:
            if ended:
                seen += 1
            else:
                new = order(indexed.first) > order(lane.position)
                bundle.follow(indexed, number, None if new else lane.position)
        elif not ended or not bundle.query.endless:
            bundle.merge.needs_snapshot(lane, indexed.operation)
            bundle.follow(indexed, number, None, "lost" if lane.lost else None)
    return seen


def report_missing(bundle: Bundle, found: Found, named: Sequence[str], *, wait: bool, seen: int) -> None:
    """Send a `missing` event for each requested id that does not exist, of those that were `named` to the search.

    Raises `NotFound` (unless `wait` is set) or `Gone` if none exists, and `Ended` if all have ended and the client has
    received their ends (`seen` is their number).
    """
    appeared = bundle.merge.ids() - found.gone.keys()  # while they were searched for
    existing = appeared.union(indexed.operation for indexed in found.operations)
    ids = [id for id in named if id not in existing]
    bundle.awaited |= set(ids) - found.gone.keys()
    for id in found.gone:
        bundle.merge.forget(id)
    if len(bundle) or bundle.query.endless or (seen and bundle.awaited) or len(named) < len(bundle.query.ids):
        pass
    elif seen:
        raise Ended("all these operations have ended, and the client has received their ends")
    elif not bundle.awaited:
        raise Gone("these operations do not exist any more: they were deleted")
    elif not wait:
        raise NotFound("none of these operations exists: they were never created, or their retention time has passed")
    for id in ids:
        bundle.missing(id, "gone" if id in found.gone else "not-found")


class MissedSearch:
    """Searches again for a bundle's operations after a feed was interrupted; retries until Redis answers."""

    def __init__(self, search: Search, tasks: Tasks) -> None:
        self._search, self._tasks = search, tasks

    def search(self, bundle: Bundle, lane: Lane) -> None:
        """Search for a lane's operations that were missed."""
        self._look(bundle, lane, lane.position, [], lost=False)

    def search_again(self, bundle: Bundle, lane: Lane, position: bytes) -> None:
        """Restart a lane with snapshots, because its feed has lost events after a position."""
        before = bundle.merge.restart(lane, position)
        self._look(bundle, lane, lane.since, before, lost=True)

    def _look(self, bundle: Bundle, lane: Lane, since: bytes, before: Sequence[str], *, lost: bool) -> None:
        searching = bundle.merge.searching([lane.number])
        self._tasks.spawn(self._follow(bundle, lane, since, before, searching, lost=lost))

    async def _follow(
        self, bundle: Bundle, lane: Lane, since: bytes, before: Sequence[str], searching: SearchGuard, *, lost: bool
    ) -> None:
        with searching:
            try:
                await searching.turn()
                found = await self._find(bundle, lane, since)
            except Exception:
                log.exception("searching for a stream's operations failed; its client is disconnected")
                bundle.close("storage-unavailable", reconnect=True)
                return
            for indexed in found.operations:
                is_former = indexed.operation in before
                if is_former or not (indexed.done and order(indexed.position) <= order(since)):
                    self._follow_found(bundle, lane, indexed, lost=lost)
            for name in set(before) - {indexed.operation for indexed in found.operations}:
                bundle.merge.settle_snapshot(lane, name)
                bundle.missing(name, "gone")
        bundle.mark_dirty(lane)

    def _follow_found(self, bundle: Bundle, lane: Lane, indexed: IndexedOperation, *, lost: bool) -> None:
        if lost:
            bundle.merge.needs_snapshot(lane, indexed.operation)
        known = not lost and order(indexed.first) <= order(lane.position)
        bundle.follow(indexed, lane.number, lane.position if known else None, "lost" if lost else None)

    async def _find(self, bundle: Bundle, lane: Lane, since: bytes) -> Found:
        found = await until_back(
            lambda: self._search.find(bundle, (lane.number,), {lane.number: since}),
            wanted=lambda: bundle.mode is not Mode.CLOSED,
        )
        return found or Found([])
