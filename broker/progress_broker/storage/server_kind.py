"""What kind of server answers at an address. Only a single master can serve us; each other kind is refused by its name.

The questions are asked once for each connection, right after it was made. No I/O happens here: whoever has the
connection sends each command that `inquire` yields, and sends it the reply, or the error that Redis replied with.
"""

from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

import redis.exceptions

CLUSTER = (
    "{} is a Redis Cluster node: progress-broker needs a single master, and can't use a Cluster yet."
    " Set PROGRESS_REDIS_URL to a Redis that runs without cluster-enabled"
)
SENTINEL = (
    "{} is a Redis Sentinel: progress-broker needs a single master, and can't ask a Sentinel for it yet."
    " Set PROGRESS_REDIS_URL to the master's own address, or to one that always leads to the master, such as a proxy's"
)
REPLICA = (
    "{} is a replica{}: progress-broker needs a single master, as a replica takes no writes."
    " Set PROGRESS_REDIS_URL to the master's address; if a failover is under way, this passes"
)

Inquiry = Generator[tuple[str, ...], Any, None]


class WrongKind(redis.exceptions.ConnectionError):
    """The server is of a kind that never serves us."""


class NotMaster(redis.exceptions.ConnectionError):
    """The server is a replica now. It may be promoted, or the address may lead to another one later."""


def inquire(address: str) -> Inquiry:
    """Ask a server what it is; raise `WrongKind` or `NotMaster`. One that does not tell is taken at its word."""
    # HELLO needs no grant. It is not everywhere: some proxies and managed servers refuse it, and INFO tells the same.
    reply = yield ("HELLO",)
    told = _read_info((yield ("INFO",))) if _refused(reply) else _read_hello(reply)
    mode, role = told.get("mode") or told.get("redis_mode"), told.get("role")
    if mode == "cluster":
        raise WrongKind(CLUSTER.format(shown(address)))
    if mode == "sentinel":
        raise WrongKind(SENTINEL.format(shown(address)))
    if role in ("replica", "slave"):
        told = _read_info((yield ("INFO", "replication")))
        host, port = told.get("master_host"), told.get("master_port")
        raise NotMaster(REPLICA.format(shown(address), f" of {host}:{port}" if host and port else ""))


def shown(address: str) -> str:
    """Return an address without user, password and options."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.path if parts.scheme == 'unix' else parts.netloc.rpartition('@')[2]}"


def _refused(reply: Any) -> bool:
    return isinstance(reply, Exception)


def _read_hello(reply: Any) -> dict[str, str]:
    """Return what HELLO tells, as RESP2 has it: names and values, one after the other."""
    if isinstance(reply, dict):
        return _read_info(reply)
    if not isinstance(reply, list):
        return {}
    told = [_text(part) for part in reply]
    return dict(zip(told[::2], told[1::2], strict=False))


def _read_info(reply: Any) -> dict[str, str]:
    if _refused(reply):
        return {}
    if isinstance(reply, dict):  # parsed by the library
        return {_text(name): _text(value) for name, value in reply.items()}
    pairs = (line.partition(":") for line in _text(reply).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _text(part: Any) -> str:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
