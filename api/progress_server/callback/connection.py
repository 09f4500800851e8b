"""A connection that the back end has allowed, until the back end is told that it has ended."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace as with_changes

from starlette.types import Scope

from progress_broker.access.takeover import replace
from progress_broker.stream.delivery import Delivery
from progress_broker.stream.frames import Frame
from progress_broker.stream.registry import Streams
from progress_broker.stream.stream import Stream

_STATE = "visit"
"""The key among the `state` of a connection's scope."""


class Visit:
    """Ends once, however it ends: with its stream if it got one, else with its request."""

    __slots__ = ("_began", "_ended", "_replace", "_replaced", "claim", "connection", "first", "held", "over")

    def __init__(self, connection: str, ended: Callable[[str, float], None]) -> None:
        self.connection = connection
        self.first: tuple[Frame, ...] = ()
        """What its client is sent first."""
        self.held = False
        """Whether it ends with something else than its request, such as a stream."""
        self.over = False
        self.claim: Callable[[], Awaitable[None]] | None = None
        """Takes the place of an older connection of the same identifier, if the back end named one."""
        self._began = time.monotonic()
        self._ended = ended
        self._replace: Callable[[], None] | None = None
        self._replaced = False

    def enter(self, scope: Scope) -> None:
        """Belong to a connection."""
        scope.setdefault("state", {})[_STATE] = self

    async def opened(self) -> None:
        """Replace the older connection of the same identifier, now that this one is open and not before."""
        claim, self.claim = self.claim, None  # it holds this visit
        if claim is not None and not self.over:
            await claim()

    def delivery(self, wanted: Delivery) -> Delivery:
        """Return how to deliver to it: as its client wants, after the first events."""
        return with_changes(wanted, first=self.first) if self.first else wanted

    def last_as(self, stream: Stream, streams: Streams) -> None:
        """Last as long as a stream does."""
        self.held = True
        streams.when_closed(stream, self.end)
        self.last_until(lambda: replace(stream))

    def last_until(self, replace: Callable[[], None]) -> None:
        """Have this called when a newer connection replaces it: it tells the client, and ends the connection."""
        self._replace = replace
        if self._replaced:
            replace()

    def replaced(self) -> None:
        """End, as a newer connection replaces it."""
        self._replaced = True
        if self._replace is not None:
            self._replace()

    def end(self, reason: str) -> None:
        """Tell the back end that it has ended, once."""
        if not self.over:
            self.over, self.claim = True, None
            self._ended(reason, time.monotonic() - self._began)


class NoVisit(Visit):
    """Stands for all connections where no back end is asked."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("", lambda *_: None)

    def last_as(self, stream: Stream, streams: Streams) -> None:
        """Do nothing."""

    def last_until(self, replace: Callable[[], None]) -> None:
        """Do nothing."""


NO_VISIT = NoVisit()


def visit_in(scope: Scope) -> Visit:
    """Return the visit of a connection."""
    found: Visit = scope.get("state", {}).get(_STATE, NO_VISIT)
    return found
