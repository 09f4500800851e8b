"""A stream's place within the limits: from the middleware that gets it to the outlet that outlives the request."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Scope

from progress_broker.limits.slots import Place

_PLACE = "place"  # the key among the `state` of a connection's scope


def place_in(scope: Scope) -> Place | None:
    """Return the place that a request was given, if it needs one."""
    place: Place | None = scope.get("state", {}).get(_PLACE)
    return place


@contextmanager
def holding(scope: Scope, place: Place) -> Iterator[None]:
    """Have a request hold a place; it is given back after the block, unless somebody outlives the request with it."""
    scope.setdefault("state", {})[_PLACE] = place
    try:
        yield
    finally:
        held = place_in(scope)  # within the block, it may have become part of another
        if held is None or not held.kept:
            place.give_back()
