"""Slots: the maximum number of streams of a replica, in total and per client address."""

from collections import Counter

from progress_broker.errors import AtCapacity, TooManyStreams
from progress_broker.limits.policy import Limits
from progress_broker.limits.stream_leases import StreamLeases
from progress_broker.runtime.tally import Tally

RETRY_AFTER_S = 10.0
"""When a client should retry after it was rejected for too many streams."""


class Holder:
    """A caller with open streams: an address and, if its streams are leased, a principal.

    All its streams share this object, so an idle connection needs none of its own for its slot.
    """

    __slots__ = ("_leases", "_principal", "_slots", "address", "streams")

    def __init__(self, slots: "Slots", address: str, principal: str, leases: StreamLeases | None) -> None:
        self._slots, self.address, self._principal, self._leases = slots, address, principal, leases
        self.streams = 0

    def release(self) -> None:
        """Release the slot of one stream, and its lease. Call it once for each stream."""
        self.streams -= 1
        if not self.streams:
            self._slots.forget(self.address, self._principal)
        self._slots.release(self.address)
        if self._leases is not None:
            self._leases.remove(self._principal)


class Slot:
    """A request's slot within the limits, which it releases or hands over to a connection that outlives it."""

    __slots__ = ("_address", "_leases", "_principal", "_slots", "transferred")

    def __init__(self, slots: "Slots", address: str) -> None:
        self._slots: Slots | None = slots
        self._address = address
        self._leases: StreamLeases | None = None
        self._principal = ""
        self.transferred = False
        """Whether a connection will release it."""

    def lease(self, leases: StreamLeases, principal: str) -> None:
        """Release a principal's lease together with the slot."""
        self._leases, self._principal = leases, principal

    def transfer(self) -> Holder | None:
        """Return the holder whose `release` a connection calls at its end; None if the slot was released."""
        slots, self._slots = self._slots, None
        if slots is None:
            return None
        self.transferred = True
        return slots.holder(self._address, self._principal, self._leases)

    def release(self) -> None:
        """Release the slot; a second call does nothing."""
        slots, self._slots = self._slots, None
        if slots is None:
            return
        slots.release(self._address)
        if self._leases is not None:
            self._leases.remove(self._principal)


class Slots:
    """The slots of one replica."""

    def __init__(self, limits: Limits, tally: Tally) -> None:
        self.limits = limits
        self._tally = tally
        self._taken = 0
        self._addresses: Counter[str] = Counter()
        self._holders: dict[tuple[str, str], Holder] = {}

    def __len__(self) -> int:
        return self._taken

    def take(self, address: str) -> Slot:
        """Take and return a slot; raise `AtCapacity` or `TooManyStreams`."""
        most = self.limits.streams_per_address
        if self._taken >= self.limits.streams:
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
        return Slot(self, address)

    def holder(self, address: str, principal: str, leases: StreamLeases | None) -> Holder:
        """Return the caller, who holds one more slot."""
        holder = self._holders.get((address, principal))
        if holder is None:
            holder = self._holders[address, principal] = Holder(self, address, principal, leases)
        holder.streams += 1
        return holder

    def forget(self, address: str, principal: str) -> None:
        """Forget a caller that holds no slot."""
        del self._holders[address, principal]

    def release(self, address: str) -> None:
        """Release a slot."""
        self._taken -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
