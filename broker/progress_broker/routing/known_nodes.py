"""What a process knows of the nodes of a Cluster: which of them serves a key, and which are away."""

from collections.abc import Generator
from typing import Any, NamedTuple

import redis.exceptions

from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.discovery import discover
from progress_broker.routing.health import Health, NodeAway
from progress_broker.routing.server_errors import reason_of, text_of
from progress_broker.routing.server_kind import WrongKind
from progress_broker.routing.slots import SlotMap, slot_of

_OUTDATED = ("CLUSTERDOWN", "READONLY", "MASTERDOWN", "UNBLOCKED")
"""Error codes that say that other nodes may have the slots by now."""


class Conclusion(NamedTuple):
    """What the owner of the connections does after an error."""

    learn: bool = False
    """Ask nodes who has which slot, by `KnownNodes.discovery`."""
    check: bool = False
    """Try the node until it answers, or has no slot any more. Nobody does so far."""


class KnownNodes:
    """The nodes of a Cluster, as one process knows them."""

    def __init__(self, address: RedisAddress) -> None:
        self.slots = SlotMap(address.reachable)
        self._seeds = address.seeds
        self._health: dict[Endpoint, Health] = {}

    def health(self, node: Endpoint) -> Health:
        """Return what is known about one node."""
        return self._health.setdefault(node, Health())

    def away(self, node: Endpoint) -> str | None:
        """Return why a node can't be reached now; None if it is well, as far as known."""
        health = self._health.get(node)
        return None if health is None or health.away is None else f"{node} is away: {health.away}"

    @property
    def well(self) -> list[Endpoint]:
        """The masters that are not away, as far as known."""
        return [master for master in self.slots.masters if self.away(master) is None]

    def find(self, key: str | bytes) -> Endpoint | None:
        """Return the node that serves a key, if it is known and well, as far as known."""
        owner = self.slots.owner(slot_of(key))
        return None if owner is None or self.away(owner) is not None else owner

    def owner(self, key: str, unknown: Exception | None) -> Endpoint:
        """Return the node that serves a key. Raises `NodeAway`, or if none is known `unknown`: why nobody told."""
        slot = slot_of(key)
        owner = self.slots.owner(slot)
        if owner is None:
            raise unknown or NodeAway(f"no node serves slot {slot} now")
        reason = self.away(owner)
        if reason is not None:
            raise NodeAway(reason)
        return owner

    def heard(self, node: Endpoint, error: Exception) -> Conclusion:
        """Draw the conclusions from an error of a node, or of a connection to it."""
        match error:
            case redis.exceptions.MovedError():
                owner = self.slots.reached(error.host, error.port, node)
                if self.slots.owner(error.slot_id) != owner:
                    self.slots.patch(error.slot_id, owner, node)
                return Conclusion(learn=True)
            case NodeAway():
                return Conclusion()
            case redis.exceptions.TimeoutError() | TimeoutError():
                return self.doubt(node, reason_of(error), hangs=True)
            case redis.exceptions.ConnectionError() | OSError():
                return self.doubt(node, reason_of(error))
            case redis.exceptions.RedisError():
                return Conclusion(learn=text_of(error).startswith(_OUTDATED))
        return Conclusion()

    def doubt(self, node: Endpoint, reason: str, *, hangs: bool = False) -> Conclusion:
        """Take the failure of a call to a node. One that `hangs` is away at once."""
        return Conclusion(check=self.health(node).doubt(reason, hangs=hangs))

    def discovery(self) -> Generator[Endpoint, Any, Exception | None]:
        """Ask nodes who has which slot, and take what one of them knows. Return the error if none does.

        Each step is whom to ask, as in `discover`: those that are well come first.
        """
        asked_at = self.slots.version
        try:
            layout = yield from discover(self.slots, (*self.well, *self.slots.replicas), self._seeds)
        except redis.exceptions.RedisError as error:
            return error
        self.slots.take(layout, asked_at)
        return None

    def leave(self, node: Endpoint) -> None:
        """Forget a node that has no slot any more."""
        self._health.pop(node, None)


def of_node(node: Endpoint, error: Exception) -> Exception:
    """Return an error of one node, as others may answer: `NodeAway` if its connection failed."""
    if isinstance(error, NodeAway | WrongKind | redis.exceptions.AuthenticationError):
        return error
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError | OSError):
        return NodeAway(f"{node}: {reason_of(error)}")
    return error
