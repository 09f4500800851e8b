"""Places: how many streams a replica has room for, in all and from each address."""

from collections import Counter
from collections.abc import Callable

from progress_broker.errors import AtCapacity, TooManyStreams
from progress_broker.limits.policy import Limits
from progress_broker.runtime.tally import Tally

COME_BACK_S = 10.0
"""Who has too many streams, or has found a replica full, need not ask again at once."""


class Place:
    """A stream's place within the limits, to be given back when it ends."""

    __slots__ = ("_give_back", "kept")

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back
        self.kept = False
        """Whether somebody has it who outlives the request, and will give it back."""

    def give_back(self) -> None:
        """Give it back, once."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Places:
    """Those of one replica."""

    def __init__(self, limits: Limits, tally: Tally) -> None:
        self._limits = limits
        self._tally = tally
        self._taken = 0
        self._addresses: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken

    def take(self, address: str) -> None:
        """Take one; raise `AtCapacity` or `TooManyStreams`."""
        most = self._limits.streams_per_address
        if self._taken >= self._limits.streams:
            self._tally.limited["replica"] += 1
            raise AtCapacity("this replica is full of streams: retry in a moment", retry_s=COME_BACK_S)
        if most and self._addresses[address] >= most:
            self._tally.limited["address"] += 1
            raise TooManyStreams(
                f"{most} streams are open from your address, as many as may be: close one, or follow many operations"
                " with one",
                retry_s=COME_BACK_S,
            )
        self._taken += 1
        self._addresses[address] += 1

    def leave(self, address: str) -> None:
        """Give one back."""
        self._taken -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
