"""Where a subscription has its frames from: its channel, and perhaps a source of what is not in the log."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from progress_broker.stream.frames import Frame

Reader = TypeVar("Reader", contravariant=True)  # a subscription, whose module imports this one


class FrameSource(Protocol[Reader]):
    """Where a subscription reads its frames: its channel."""

    @property
    def operation(self) -> str:
        """The operation's id."""

    @property
    def n(self) -> int:
        """The number of the last delivered event. Every live subscription has received it."""

    @property
    def position(self) -> bytes:
        """The position of that event."""

    @property
    def percent(self) -> float | None:
        """The last percentage of the operation that is in memory, for log lines."""

    @property
    def bookmark_every(self) -> int:
        """After how many events a client that wants few types is told its new position."""

    @property
    def loaded(self) -> bool:
        """Whether the recent frames are loaded. When they are, the source calls `Subscription.pump`."""

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th (maybe none yet), or None if they are no longer in memory."""

    def read_page(self, subscription: Reader) -> None:
        """Read the frames after the subscription's position from Redis, and call `take_page`."""

    def read_snapshot(self, subscription: Reader, reset: str | None) -> None:
        """Read the operation's snapshot, and call `take_snapshot`. After lost history, the events that are stored after
        the last one that the subscription shares with the log follow."""

    def wake(self, subscription: Reader) -> None:
        """Call `Subscription.pump` when there is a new frame."""

    def join(self, subscription: Reader) -> None:
        """From now on, write each new frame to the subscription's outlet."""

    def part(self, subscription: Reader) -> None:
        """Stop writing to it."""

    def leave(self, subscription: Reader) -> None:
        """Remove the subscription, which has closed."""


class SideChannel(Protocol):
    """A source of frames that are not in the log: state of which the client needs only the newest version.

    The frames have no position. They are sent only to a client that has caught up.
    """

    def pending(self, *, last: bool = False) -> Sequence[Frame]:
        """Return the frames to send now, if there are any. `last` means that the `end` follows."""

    def leave(self) -> None:
        """Remove the subscription, which has closed."""
