"""Who is counted where: the address that a stream counts for, and the place it has within the limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from progress_broker.limits.slots import Place

IPV6_BITS = 64
"""A network of this size is one customer's: each of its addresses is as easily had as the next."""

_PLACE = "place"  # the key among the `state` of a connection's scope


def address_of(scope: Scope) -> str:
    """Return the client's address; of IPv6 its network. Proxies that are trusted were asked already."""
    client = scope.get("client")
    return _counted(client[0]) if client else ""


@lru_cache(maxsize=4096)
def _counted(text: str) -> str:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:  # a proxy's word for it, such as "unknown"
        return text[:64]
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    network = int(address) >> (128 - IPV6_BITS) << (128 - IPV6_BITS)
    return f"{IPv6Address(network)}/{IPV6_BITS}"


def place_in(scope: Scope) -> Place | None:
    """Return the place that a request was given, if it needs one."""
    place: Place | None = scope.get("state", {}).get(_PLACE)
    return place


@contextmanager
def holding(scope: Scope, place: Place) -> Iterator[None]:
    """Have a request hold a place; it is given back after the block, unless somebody outlives the request with it."""
    scope.setdefault("state", {})[_PLACE] = place
    try:
        yield
    finally:
        held = place_in(scope)  # within the block, it may have become part of another
        if held is None or not held.kept:
            place.give_back()
