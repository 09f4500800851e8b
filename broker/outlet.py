"""The outlet: where bytes leave. The one seam between subscriptions and whatever carries them to a client."""

from typing import Protocol

from broker.events import Frame


class Outlet(Protocol):
    """A way out to one client: an ASGI response, an adopted socket, a WebSocket, a long poll.

    Nothing here may block. Whoever makes the outlet calls `Subscription.drained` when there is room again, and
    `Subscription.close` when the client has gone.
    """

    def write(self, frame: Frame) -> bool:
        """Take a frame, always; return False when there is no room for another until drained."""

    def close(self) -> None:
        """End the response once all that was written has left."""

    def abort(self) -> None:
        """End the response now; what was written may be lost."""


class NoOutlet:
    """The outlet of a subscription that has none yet, or no longer: it takes nothing."""

    def write(self, frame: Frame) -> bool:
        """Refuse: there is no room."""
        return False

    def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""
