"""Which operations a bundle follows: those that are there when it begins, and those it was not told of meanwhile."""

import logging
from collections.abc import Callable, Iterable, Sequence

from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.lane import Lane
from progress_broker.bundle.merge import Searching
from progress_broker.bundle.search import Search
from progress_broker.errors import Ended, Gone, Invalid, NotFound
from progress_broker.model.index_terms import Facts, Found
from progress_broker.model.position import order
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.stream.stream import Mode

log = logging.getLogger(__name__)


class TooManyEnded(Exception):
    """More operations have ended while the client was away than it can be told of."""


def check_number(found: Found, most: int, *, resuming: bool) -> None:
    """Raise `Invalid` if there are more than a stream carries, `TooManyEnded` if that is of those that have ended."""
    if len(found.facts) <= most:
        return
    if resuming and sum(not facts.done for facts in found.facts) <= most:
        raise TooManyEnded
    raise Invalid(
        f"these are {len(found.facts)} operations or more, and a stream carries {most}:"
        " narrow the query, or open several streams",
        field="operation",
    )


def begin(bundle: Bundle, found: Iterable[Facts], lane_of: Callable[[str], int]) -> int:
    """Follow what was found, from the position that is known of each lane or with a snapshot.

    Return how many have ended, and their ends were seen.
    """
    seen = 0
    for facts in found:
        number = lane_of(facts.operation)
        lane = bundle.merge.lane(number)
        ended = facts.done and order(facts.position) <= order(lane.since)  # when its client was here before, or began
        if not lane.needs_snapshots:
            if ended:
                seen += 1
            else:
                new = order(facts.first) > order(lane.position)
                bundle.follow(facts, number, None if new else lane.position)
        elif not ended or not bundle.query.endless:
            bundle.merge.needs_snapshot(lane, facts.operation)
            bundle.follow(facts, number, None, "lost" if lane.lost else None)
    return seen


def tell_missing(bundle: Bundle, found: Found, *, wait: bool, seen: int) -> None:
    """Tell which of those named are not there.

    Raises `NotFound` or `Gone` if there is none (unless it is to `wait` for one), and `Ended` if all there were have
    ended, and their ends were `seen`.
    """
    there = {facts.operation for facts in found.facts}
    ids = [id for id in bundle.query.ids if id not in there]
    bundle.awaited |= set(ids) - found.gone.keys()
    for id in found.gone:
        bundle.merge.forget(id)
    if len(bundle) or bundle.query.endless or (seen and bundle.awaited):
        pass
    elif seen:
        raise Ended("all these operations have ended, and their ends were seen")
    elif not bundle.awaited:
        raise Gone("these operations were deleted")
    elif not wait:
        raise NotFound("there are no such operations: they were never created, or their retention has passed")
    for id in ids:
        bundle.missing(id, "gone" if id in found.gone else "not-found")


class Missed:
    """Looks again for what bundles follow, until Redis has answered: a feed was interrupted, and something missed."""

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
