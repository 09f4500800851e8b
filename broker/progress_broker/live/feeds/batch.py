"""What a read of feeds brings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from progress_broker.history.losses import Loss
from progress_broker.live.feeds.landmarks import Landmarks
from progress_broker.model.event import Event


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of a read. Events of the lanes in `resync` may have been missed: their logs must be read again."""

    events: list[Event]
    resync: tuple[int, ...] = ()
    lost: Mapping[int, Loss] = field(default_factory=dict)
    """The lanes of `resync` whose feed no longer has entries that were delivered: Redis has lost history."""


class Begun(NamedTuple):
    """Where feeds go on after an interruption."""

    last: Mapping[bytes, Sequence[Any] | None]
    """The newest entry of each feed."""
    losses: Mapping[bytes, Loss]
    """What feeds have lost."""

    def remember(self, landmarks: Mapping[bytes, Landmarks]) -> None:
        """Forget of each feed what it has lost, and remember its newest entry."""
        for feed, entry in self.last.items():
            if feed in self.losses:
                landmarks[feed].forget_after(self.losses[feed].shared)
            if entry is not None:
                landmarks[feed].add(entry)
