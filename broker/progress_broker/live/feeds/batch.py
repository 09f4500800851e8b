"""What a read of feeds brings."""

from dataclasses import dataclass

from progress_broker.model.event import Event


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of a read. Events of the lanes in `resync` may have been missed: their logs must be read again."""

    events: list[Event]
    resync: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    """The lanes of `resync` whose feed no longer has entries that were delivered: Redis has lost history."""
