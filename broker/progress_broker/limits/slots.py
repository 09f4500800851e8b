"""Slots: the maximum number of streams of a replica, in total and per client address."""

from collections import Counter
from collections.abc import Callable

from progress_broker.errors import AtCapacity, TooManyStreams
from progress_broker.limits.policy import Limits
from progress_broker.runtime.tally import Tally

RETRY_AFTER_S = 10.0
"""When a client should retry after it was rejected for too many streams."""


class Slot:
    """A stream's slot within the limits. It is released when the stream ends."""

    __slots__ = ("_give_back", "transferred")

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back
        self.transferred = False
        """Whether another owner, which lives longer than the request, will release it."""

    def release(self) -> None:
        """Release the slot; a second call does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Slots:
    """The slots of one replica."""

    def __init__(self, limits: Limits, tally: Tally) -> None:
        self._limits = limits
        self._tally = tally
        self._taken = 0
        self._addresses: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken

    def take(self, address: str) -> None:
        """Take a slot; raise `AtCapacity` or `TooManyStreams`."""
        most = self._limits.streams_per_address
        if self._taken >= self._limits.streams:
            self._tally.limited["replica"] += 1
            raise AtCapacity(
                "this server has reached its maximum number of streams (max_streams): retry in a moment",
                retry_s=RETRY_AFTER_S,
            )
        if most and self._addresses[address] >= most:
            self._tally.limited["address"] += 1
            raise TooManyStreams(
                f"your address has {most} streams open, which is the maximum (max_streams_per_address): close one,"
                " or follow many operations with one stream",
                retry_s=RETRY_AFTER_S,
            )
        self._taken += 1
        self._addresses[address] += 1

    def release(self, address: str) -> None:
        """Release a slot."""
        self._taken -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
