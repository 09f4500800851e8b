"""Beginning: where a bundle's members stand at first, from what its client knows."""

from collections.abc import Callable, Iterable

from progress_broker.bundle.bundle import Bundle
from progress_broker.errors import Ended, Gone, Invalid, NotFound
from progress_broker.model.index_terms import Facts, Found
from progress_broker.model.position import order


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
