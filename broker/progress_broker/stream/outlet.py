"""The outlet: the interface between a stream and the transport that sends its bytes to the client."""

from collections.abc import Sequence
from typing import Any, Protocol

from progress_broker.stream.frames import Frame


class Encoding(Protocol):
    """Encodes frames for one kind of outlet. Outlets of the same kind share it, so a frame is encoded only once."""

    def encode(self, frames: Sequence[Frame]) -> Any:
        """Return the data for `Outlet.write`."""


class Outlet(Protocol):
    """The transport to one client: an ASGI response, an adopted socket, a WebSocket or a long poll.

    No method may block. The creator of the outlet calls the stream's `pause_writing` when the send buffer is full (also
    from within `write`), `resume_writing` when there is room again, and `close` when the client has disconnected.
    """

    @property
    def kind(self) -> str:
        """Its label in the metrics."""

    @property
    def encoding(self) -> Encoding:
        """The encoding for this kind of outlet."""

    @property
    def client(self) -> str:
        """The client's address, or its network for IPv6; empty if it is not known."""

    def write(self, data: Any) -> object:
        """Send encoded data. It is always accepted, even if the buffer is full."""

    def close(self) -> None:
        """End the response after all written data has been sent."""

    def abort(self) -> None:
        """End the response now; written data may be lost."""


class OutletOwner(Protocol):
    """The stream that writes to an outlet, and is notified about its buffer: a subscription or a bundle."""

    @property
    def connection(self) -> str:
        """The name of the connection, for log lines and for the client."""

    def attach(self, outlet: Outlet) -> None:
        """Start to write to an outlet."""

    def pause_writing(self) -> None:
        """Stop writing: the send buffer is full."""

    def resume_writing(self) -> None:
        """Continue to write: the send buffer has room again."""

    def close(self, reason: str = "client", *, reconnect: bool = False) -> None:
        """Close the stream; a second call does nothing. With `reconnect`, the client is asked to reconnect."""


class Text:
    """Server-Sent Events, unchanged."""

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the frames' bytes."""
        return frames[0].wire if len(frames) == 1 else b"".join([frame.wire for frame in frames])


def size(data: Any) -> int:
    """Return the number of bytes of encoded data: of bytes, or of an object with a `size`; else 0."""
    return len(data) if isinstance(data, bytes) else getattr(data, "size", 0)


class Unencoded:
    """The frames themselves, for outlets in this process."""

    def encode(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return the frames."""
        return frames


TEXT = Text()
UNENCODED = Unencoded()


class NoOutlet:
    """The outlet of a stream whose client is not connected yet, or not any more. It ignores all data."""

    kind = "none"
    encoding = UNENCODED
    client = ""

    def write(self, data: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


NO_OUTLET = NoOutlet()
