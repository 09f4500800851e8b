"""Hash slots: how a Redis Cluster divides keys between its nodes."""

from binascii import crc_hqx
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from progress_broker.routing.address import Endpoint

SLOTS = 16384


def hash_slot(tag: bytes) -> int:
    """Return the cluster slot of a hash tag: CRC-16/XMODEM modulo 16384 (Redis Cluster specification)."""
    return crc_hqx(tag, 0) % SLOTS


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key: that of its hash tag, if it has one."""
    name = key if isinstance(key, bytes) else key.encode()
    _, _, after = name.partition(b"{")
    tag, closed, _ = after.partition(b"}")
    return hash_slot(tag if tag and closed else name)


class Layout(NamedTuple):
    """What a node of a Cluster knows about all of them."""

    ranges: tuple[tuple[int, int, Endpoint], ...]
    """The first and the last slot of each range, and the master that has the range."""
    replicas: tuple[Endpoint, ...]


class SlotMap:
    """Which master has which slot, as far as this process knows."""

    def __init__(self, reachable: Mapping[Endpoint, Endpoint] | None = None) -> None:
        self._reachable = reachable or {}
        self._owners: list[Endpoint | None] = [None] * SLOTS
        self._patches: dict[int, tuple[int, Endpoint]] = {}
        self.version = 0
        """It grows with each change."""
        self.informed: Endpoint | None = None
        """The node that redirected last, since a node was asked. Others may not know yet what it knows."""
        self.masters: tuple[Endpoint, ...] = ()
        self.replicas: tuple[Endpoint, ...] = ()

    def owner(self, slot: int) -> Endpoint | None:
        """Return the master that has a slot; None if none is known."""
        return self._owners[slot]

    def patch(self, slot: int, owner: Endpoint, said: Endpoint) -> None:
        """Take one slot's new owner, as a redirection of a node `said`."""
        self.version += 1
        self.informed = said
        self._owners[slot] = owner
        self._patches[slot] = (self.version, owner)
        self._find_masters()

    def take(self, layout: Layout, asked_at: int) -> None:
        """Take what a node knows. `asked_at` is the version when it was asked: later patches are newer than it."""
        self.version += 1
        self._owners = [None] * SLOTS
        for first, last, owner in layout.ranges:
            self._owners[first : last + 1] = [owner] * (last + 1 - first)
        patches = list(self._patches.items())  # at once: another thread may add one
        self._patches = {slot: patch for slot, patch in patches if patch[0] > asked_at}
        for slot, (_, owner) in list(self._patches.items()):
            self._owners[slot] = owner
        self.replicas = layout.replicas
        self._find_masters()

    def reached(self, host: str, port: int, asked: Endpoint) -> Endpoint:
        """Return where a node is reached that a server announces. Without a host it means the server that was asked."""
        announced = Endpoint(host.lower() or asked.host, port)
        return self._reachable.get(announced, announced)

    def serves(self, owner: Endpoint) -> bool:
        """Return whether a node has any slot."""
        return owner in self.masters

    def _find_masters(self) -> None:
        self.masters = tuple(_distinct(owner for owner in self._owners if owner is not None))


def _distinct(owners: Iterable[Endpoint]) -> Iterable[Endpoint]:
    return dict.fromkeys(owners)
