"""What tests need of a kind of Redis: its address, its servers, and ways to break it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import redis

from progress_broker.routing.address import parse_address
from progress_broker.storage.keys import Keyspace
from tests.servers import RealRedis

LANES = 16
"""What the tests' settings say."""


class Topology(Protocol):
    """Servers that are one Redis to the broker."""

    @property
    def url(self) -> str:
        """The address that settings name."""

    def masters(self) -> list[RealRedis]:
        """The servers that accept writes now, and are up."""

    def of_lane(self, lane: int) -> RealRedis:
        """The server that has a lane now."""

    def flush(self) -> None:
        """Empty each master."""

    def kill(self, node: RealRedis) -> None: ...

    def stop(self, node: RealRedis) -> None:
        """Have a server hang, with its connections open."""

    def cont(self, node: RealRedis) -> None:
        """Have it go on."""

    def failover(self, lane: int, *, planned: bool) -> RealRedis:
        """Promote a replica of a lane's master, and return it. Unless it is planned, the master is killed."""

    def cut_replication(self, node: RealRedis) -> None:
        """Have the replicas of a master hear no more of it, while clients still do."""


@contextmanager
def client_of(node: RealRedis) -> Iterator["redis.Redis"]:
    """A client of one server."""
    with redis.Redis.from_url(node.url, protocol=2, socket_timeout=5) as client:
        yield client


def client_for(url: str) -> Any:
    """Return a client whose commands go to the server that has their keys, whatever kind of Redis it is."""
    address = parse_address(url)
    if address.kind == "cluster":
        return redis.RedisCluster(startup_nodes=[redis.cluster.ClusterNode(*seed[:2]) for seed in address.seeds])
    if address.kind == "sentinel":
        return redis.Sentinel([seed[:2] for seed in address.seeds]).master_for(address.service)
    return redis.Redis.from_url(url)


def do(node: RealRedis, *command: Any) -> Any:
    """Send a server a command."""
    with client_of(node) as client:
        return client.execute_command(*command)


def feed_of(lane: int, lanes: int = LANES) -> str:
    """Return the key of a lane's feed: all keys of a lane are in its slot."""
    return Keyspace("pb", lanes).lane(lane).feed
