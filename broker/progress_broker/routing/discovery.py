"""Asks the nodes of a Cluster who has which slot. No I/O happens here: the caller asks each node that is yielded."""

from collections.abc import Generator, Iterable
from typing import Any, Final

import redis.exceptions

from progress_broker.routing.address import Endpoint
from progress_broker.routing.server_errors import reason_of
from progress_broker.routing.slots import Layout, SlotMap

ASK: Final = ("CLUSTER", "SLOTS")
"""Redis 6.2 has no CLUSTER SHARDS."""

PATIENCE_S: Final = 1.0
"""How long one node may take to answer."""

EVERY_S: Final = 0.1
"""The least time from one round of questions to the next."""

WHILE_AWAY_S: Final = 0.5
"""How often is asked while a node is away: nobody may be publishing, and so find its successor by a redirection."""

_UNKNOWN: Final = "?"

Discovery = Generator[Endpoint, Any, Layout]


def discover(slots: SlotMap, first: Iterable[Endpoint], seeds: Iterable[Endpoint]) -> Discovery:
    """Ask nodes in turn, `first` those, until one knows. Yield whom to ask; send its reply to `ASK` or the error back.

    Before all others, it asks the node that redirected last. Raises the first error if nobody knows.
    """
    errors: list[Exception] = []
    informed, slots.informed = slots.informed, None
    if informed is not None:
        first = (informed, *first)
    for node in dict.fromkeys((*first, *slots.masters, *slots.replicas, *seeds)):
        reply = yield node
        if isinstance(reply, Exception):
            known = isinstance(reply, redis.exceptions.RedisError)
            errors.append(reply if known else redis.exceptions.ConnectionError(reason_of(reply)))
            continue
        layout = read_layout(reply, node, slots)
        if layout.ranges:
            return layout
        errors.append(redis.exceptions.ClusterDownError(f"{node} knows no node that has a slot"))
    raise errors[0]


def read_layout(reply: Any, asked: Endpoint, slots: SlotMap) -> Layout:
    """Read a reply to CLUSTER SLOTS. Nodes without a known address are left out."""
    ranges: list[tuple[int, int, Endpoint]] = []
    replicas: list[Endpoint] = []
    for first, last, master, *others in reply:
        owner = _endpoint(master, asked, slots)
        if owner is not None:
            ranges.append((first, last, owner))
        replicas += [found for other in others if (found := _endpoint(other, asked, slots)) is not None]
    return Layout(tuple(ranges), tuple(dict.fromkeys(replicas)))


def _endpoint(node: Any, asked: Endpoint, slots: SlotMap) -> Endpoint | None:
    raw, port = node[0], node[1]
    host = raw.decode() if isinstance(raw, bytes) else raw or ""
    return None if host == _UNKNOWN else slots.reached(host, port, asked)
