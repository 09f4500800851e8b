"""The slot that a stream takes within the limits, and the client address that it is counted under."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from progress_broker.limits.slots import Slot

IPV6_BITS = 64
"""IPv6 clients are counted by network of this prefix length: one customer usually has all addresses in it."""

_STATE = "slot"  # the key among the `state` of a connection's scope


def address_of(scope: Scope) -> str:
    """Return the client's address, or its network for IPv6. The server has already resolved trusted proxies."""
    client = scope.get("client")
    return _counted(client[0]) if client else ""


@lru_cache(maxsize=4096)
def _counted(text: str) -> str:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:  # a proxy can put another word here, such as "unknown"
        return text[:64]
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    network = int(address) >> (128 - IPV6_BITS) << (128 - IPV6_BITS)
    return f"{IPv6Address(network)}/{IPV6_BITS}"


def slot_in(scope: Scope) -> Slot | None:
    """Return the slot that a request holds, if any."""
    slot: Slot | None = scope.get("state", {}).get(_STATE)
    return slot


class HeldSlot:
    """Holds a slot for a request, and releases it after the block.

    It is not released if a connection that outlives the request has taken it over (`transferred`).
    """

    __slots__ = ("_scope", "_slot")

    def __init__(self, scope: Scope, slot: Slot) -> None:
        self._scope, self._slot = scope, slot

    def __enter__(self) -> None:
        self._scope.setdefault("state", {})[_STATE] = self._slot

    def __exit__(self, *_: object) -> None:
        last = slot_in(self._scope)  # the block may have replaced it by another slot that includes it
        if last is None or not last.transferred:
            self._slot.release()
