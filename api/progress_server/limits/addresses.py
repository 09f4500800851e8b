"""Addresses: where a caller is, as limits count it."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

IPV6_BITS = 64
"""A network of this size is one customer's: each of its addresses is as easily had as the next."""


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
