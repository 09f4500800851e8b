"""A stream's place within the limits: from the middleware that gets it to the outlet that outlives the request."""

from starlette.types import Scope

from broker.places import Place

PLACE = "place"
"""The key among the `state` of a connection's scope."""


def place_in(scope: Scope) -> Place | None:
    """Return the place that a request was given, if it needs one."""
    place: Place | None = scope.get("state", {}).get(PLACE)
    return place
