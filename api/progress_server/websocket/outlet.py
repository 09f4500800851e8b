"""A member: the way out of one subscription, over a socket that it shares with others."""

from typing import Protocol

from progress_broker.stream.subscription import Subscription
from progress_server.websocket.encoding import WRAPPED, Said


class Carrier(Protocol):
    """What a member asks of its socket."""

    def carry(self, said: Said) -> None:
        """Send it; tell those who send to stop when there is no more room."""

    def left(self, member: "Member", why: str) -> None:
        """Let go of a member whose subscription has ended."""

    def abort(self, reason: str) -> None:
        """Cut the connection."""


class Member:
    """The outlet of a subscription over a socket."""

    kind = "websocket"
    encoding = WRAPPED

    def __init__(self, subscription: Subscription, carrier: Carrier) -> None:
        self.subscription = subscription
        self._carrier = carrier
        self._why = "draining"  # what ends a subscription before it has been told anything

    @property
    def operation(self) -> str:
        """Whose events it carries."""
        return self.subscription.operation

    def write(self, said: Said) -> None:
        """Pass it on."""
        if said.away is not None:
            self._why = said.away.reason
        else:
            if said.end:
                self._why = "ended"
            self._carrier.carry(said)

    def close(self) -> None:
        """Tell the socket, which goes on with the others."""
        self._carrier.left(self, self._why)

    def abort(self) -> None:
        """Cut the whole socket: its client takes nothing."""
        self._carrier.abort("stuck")
