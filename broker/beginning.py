"""Beginning: where a bundle's members stand at first, from what its client knows."""

from collections.abc import Callable, Iterable, Mapping

from broker.bundle import Bundle
from broker.errors import Gone, NotFound
from broker.finding import Facts, Found
from broker.placing import Ended
from broker.positions import order


def begin(
    bundle: Bundle,
    found: Iterable[Facts],
    lane_of: Callable[[str], int],
    known: Mapping[int, bytes],
    lost: frozenset[int] = frozenset(),
) -> int:
    """Follow what was found, from the position that is known of each lane or with a snapshot.

    Return how many have ended, and their ends were seen. In the lanes that are `lost` storage has forgotten what the
    client knows.
    """
    seen = 0
    for facts in found:
        number = lane_of(facts.operation)
        position = known.get(number)
        lane = bundle.merge.lane(number)
        if position is None:
            if not bundle.query.endless or not facts.done or order(facts.position) > order(lane.position):
                bundle.merge.begin_anew(lane, facts.operation)
                bundle.follow(facts, number, None, "lost" if number in lost else None)
        elif facts.done and order(facts.position) <= order(position):
            seen += 1
        else:
            bundle.follow(facts, number, None if order(facts.first) > order(position) else position)
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
