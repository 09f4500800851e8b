"""Checks whether a server is of the kind that the address says; the error for any other kind says what to write.

The check runs once for each new connection. No I/O happens here: the owner of the connection runs each command that
`inquire` yields, and sends the reply, or the error that Redis replied with, back into it. Later `is_replica` reads the
reply to the command that `inquire` returned.
"""

from collections.abc import Generator
from typing import Any

import redis.exceptions

from progress_broker.routing.address import Kind

CLUSTER = (
    "{} is a node of a Redis Cluster: write redis+cluster://… instead of {}://… in PROGRESS_REDIS_URL, with some of its"
    " nodes, or set it to a Redis that runs without cluster-enabled"
)
NO_CLUSTER = (
    "{} is not a node of a Redis Cluster: write redis://… instead of redis+cluster://… in PROGRESS_REDIS_URL,"
    " or set cluster-enabled at each node"
)
SENTINEL = (
    "{} is a Redis Sentinel: write redis+sentinel://{}/SERVICE in PROGRESS_REDIS_URL, with the name of the master that"
    " it watches for SERVICE, or set it to the master's address"
)
REPLICA = (
    "{} is a replica{}: progress-broker needs the master, because a replica rejects writes."
    " Set PROGRESS_REDIS_URL to the master's address; during a failover, wait: this is retried"
)

Inquiry = Generator[tuple[str, ...], Any, tuple[str, ...]]


class WrongKind(redis.exceptions.ConnectionError):
    """The server is of a kind that can never be used."""


class NotMaster(redis.exceptions.ConnectionError):
    """The server is a replica now. Later it may be promoted, or the address may lead to another server."""


def inquire(shown: str, expected: Kind = "single") -> Inquiry:
    """Ask a server for its kind; raise `WrongKind` or `NotMaster`. A server that does not report it is accepted.

    A node of a Cluster may be a replica: it names the master to each call, so nothing old is read.

    Return the command that asks this server for its role again.
    """
    # HELLO needs no permission, but some proxies and managed servers reject it. INFO has the same information.
    again: tuple[str, ...] = ("HELLO",)
    reply = yield again
    if _rejected(reply):
        again = ("INFO", "replication")
        reply = yield ("INFO",)
    fields = _read_fields(reply)
    mode = fields.get("mode") or fields.get("redis_mode")
    if mode == "sentinel":
        raise WrongKind(SENTINEL.format(shown, shown.partition("://")[2]))
    if expected == "cluster":
        if mode not in (None, "cluster"):
            raise WrongKind(NO_CLUSTER.format(shown))
        return again
    if mode == "cluster":
        raise WrongKind(CLUSTER.format(shown, shown.partition("://")[0]))
    if is_replica(reply):
        fields = _read_fields((yield ("INFO", "replication")))
        host, port = fields.get("master_host"), fields.get("master_port")
        raise NotMaster(REPLICA.format(shown, f" of {host}:{port}" if host and port else ""))
    return again


def is_replica(reply: Any) -> bool:
    """Return whether a reply to HELLO or INFO, or an error, says that the server is a replica."""
    return _read_fields(reply).get("role") in ("replica", "slave")


def _rejected(reply: Any) -> bool:
    return isinstance(reply, Exception)


def _read_fields(reply: Any) -> dict[str, str]:
    """Return the fields in a reply to HELLO or INFO. In RESP2, HELLO replies a list of names and values in turn."""
    if _rejected(reply):
        return {}
    if isinstance(reply, dict):  # RESP3, or already parsed by the library
        return {_text(name): _text(value) for name, value in reply.items()}
    if isinstance(reply, list):
        parts = [_text(part) for part in reply]
        return dict(zip(parts[::2], parts[1::2], strict=False))
    pairs = (line.partition(":") for line in _text(reply).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _text(part: Any) -> str:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
