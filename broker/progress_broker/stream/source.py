"""What a subscription asks of its channel."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from progress_broker.stream.frames import Frame

if TYPE_CHECKING:
    from progress_broker.stream.subscription import Subscription


class Source(Protocol):
    """Where a subscription gets frames from: its channel."""

    @property
    def operation(self) -> str:
        """Whose events they are."""

    @property
    def n(self) -> int:
        """The number of the last event handed on; all that are live have it."""

    @property
    def position(self) -> bytes:
        """The position of that event."""

    @property
    def loaded(self) -> bool:
        """Whether the recent frames are known; when they come to be, `Subscription.pump` is called."""

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th, none if there are none yet, or None if they are no longer at hand."""

    def read_page(self, subscription: "Subscription") -> None:
        """Read older frames after the subscription's position, and call `take_page`."""

    def read_snapshot(self, subscription: "Subscription", reset: str | None) -> None:
        """Read the operation, and call `take_snapshot`."""

    def wake(self, subscription: "Subscription") -> None:
        """Call `Subscription.pump` when there is another frame."""

    def join(self, subscription: "Subscription") -> None:
        """Write each new frame to the subscription's outlet from now on."""

    def part(self, subscription: "Subscription") -> None:
        """Write no more to it."""

    def leave(self, subscription: "Subscription") -> None:
        """Forget the subscription."""
