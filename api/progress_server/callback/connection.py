"""A connection that the back end has allowed, until the back end is notified that it has ended."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace as with_changes

from starlette.types import Scope

from progress_broker.access.takeover import replace
from progress_broker.stream.delivery import Delivery
from progress_broker.stream.frames import Frame
from progress_broker.stream.registry import StreamRegistry
from progress_broker.stream.stream import Stream

_STATE = "authorized_connection"
"""The key among the `state` of a connection's scope."""


class AuthorizedConnection:
    """An allowed connection. It ends exactly once: with its stream if it has one, else with its request."""

    __slots__ = ("_began", "_ended", "_replace", "_replaced", "claim", "connection", "ended", "first", "transferred")

    def __init__(self, connection: str, ended: Callable[[str, float], None]) -> None:
        self.connection = connection
        self.first: tuple[Frame, ...] = ()
        """What its client is sent first."""
        self.transferred = False
        """Whether something other than its request ends it, such as a stream."""
        self.ended = False
        self.claim: Callable[[], Awaitable[None]] | None = None
        """Takes the place of an older connection of the same identifier, if the back end named one."""
        self._began = time.monotonic()
        self._ended = ended
        self._replace: Callable[[], None] | None = None
        self._replaced = False

    def attach_to(self, scope: Scope) -> None:
        """Store this object in the scope of a connection."""
        scope.setdefault("state", {})[_STATE] = self

    async def opened(self) -> None:
        """Replace the older connection of the same identifier, now that this one is open and not before."""
        claim, self.claim = self.claim, None  # it refers to this connection
        if claim is not None and not self.ended:
            await claim()

    def delivery(self, wanted: Delivery) -> Delivery:
        """Return the delivery options that the client wants, with the back end's first events added."""
        return with_changes(wanted, first=self.first) if self.first else wanted

    def bind_stream(self, stream: Stream, streams: StreamRegistry) -> None:
        """End when this stream closes, and not with the request."""
        self.transferred = True
        streams.when_closed(stream, self.end)
        self.on_replaced(lambda: replace(stream))

    def on_replaced(self, replace: Callable[[], None]) -> None:
        """Register `replace`, which is called when a newer connection replaces this one.

        `replace` must notify the client and close this connection.
        """
        self._replace = replace
        if self._replaced:
            replace()

    def replaced(self) -> None:
        """Close this connection, because a newer one has replaced it."""
        self._replaced = True
        if self._replace is not None:
            self._replace()

    def end(self, reason: str) -> None:
        """Notify the back end that it has ended, once."""
        if not self.ended:
            self.ended, self.claim = True, None
            self._ended(reason, time.monotonic() - self._began)


class UnauthorizedConnection(AuthorizedConnection):
    """The connection to use without a back end: it has no first events, and nothing is notified."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("", lambda *_: None)

    def bind_stream(self, stream: Stream, streams: StreamRegistry) -> None:
        """Do nothing."""

    def on_replaced(self, replace: Callable[[], None]) -> None:
        """Do nothing."""


NO_CONNECTION = UnauthorizedConnection()


def connection_in(scope: Scope) -> AuthorizedConnection:
    """Return the allowed connection in a scope; if no back end was asked, `NO_CONNECTION`."""
    found: AuthorizedConnection = scope.get("state", {}).get(_STATE, NO_CONNECTION)
    return found
