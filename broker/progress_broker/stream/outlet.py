"""The outlet: where bytes leave. The one seam between subscriptions and whatever carries them to a client."""

from collections.abc import Sequence
from typing import Any, Protocol

from progress_broker.stream.frames import Frame


class Encoding(Protocol):
    """How frames look to one kind of outlet. Outlets of a kind share one, so that a frame is encoded once for all."""

    def encode(self, frames: Sequence[Frame]) -> Any:
        """Return what `Outlet.write` takes."""


class Outlet(Protocol):
    """A way out to one client: an ASGI response, an adopted socket, a WebSocket, a long poll.

    Nothing here may block. Whoever makes the outlet calls `Subscription.filled` when there is no room for more, also
    from within `write`, `Subscription.drained` when there is again, and `Subscription.close` when the client has gone.
    """

    @property
    def kind(self) -> str:
        """What it is called where streams are counted."""

    @property
    def encoding(self) -> Encoding:
        """What makes bytes of frames."""

    def write(self, data: Any) -> object:
        """Take what the encoding made, always."""

    def close(self) -> None:
        """End the response once all that was written has left."""

    def abort(self) -> None:
        """End the response now; what was written may be lost."""


class Writer(Protocol):
    """What writes to an outlet, and is told how it fares: a subscription, or a bundle of them."""

    connection: str
    """What log lines and its client call it."""

    def attach(self, outlet: Outlet) -> None:
        """Open the way out."""

    def filled(self) -> None:
        """Stop: there is no room for more."""

    def drained(self) -> None:
        """Go on: there is room again."""

    def close(self, reason: str = "client", *, reconnect: bool = False) -> None:
        """End it, once."""


class Text:
    """Server-sent events as they are."""

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the frames' bytes."""
        return frames[0].wire if len(frames) == 1 else b"".join([frame.wire for frame in frames])


def size(data: Any) -> int:
    """Return how many bytes of what an encoding made go out: bytes, or what tells its `size`; 0 for neither."""
    return len(data) if isinstance(data, bytes) else getattr(data, "size", 0)


class Unencoded:
    """The frames themselves, for outlets within this process."""

    def encode(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return the frames."""
        return frames


TEXT = Text()
UNENCODED = Unencoded()


class NoOutlet:
    """The outlet of a subscription that has none yet, or no longer: it takes nothing."""

    kind = "none"
    encoding = UNENCODED

    def write(self, data: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


NO_OUTLET = NoOutlet()
