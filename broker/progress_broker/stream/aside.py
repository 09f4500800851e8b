"""What a subscription may be told beside the events of its operation."""

from collections.abc import Sequence
from typing import Protocol

from progress_broker.stream.frames import Frame


class Aside(Protocol):
    """State, of which the newest is enough. Its frames have no position: they are sent to who has caught up."""

    def news(self, *, last: bool = False) -> Sequence[Frame]:
        """Return what is to be sent now, if anything is; the `last` time is before the `end`."""

    def leave(self) -> None:
        """Forget the subscription."""
