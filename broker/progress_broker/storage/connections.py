"""The way to Redis. Callers name keys, and never a server.

One server serves all keys today. Support for Cluster would divide keys by their hash slots, and support for Sentinel
change which server it is. Neither would change the callers.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

import redis.asyncio as aioredis

from progress_broker.nodes.instrumented import ClientMetrics
from progress_broker.nodes.node import Node
from progress_broker.settings import Settings
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import VERBS


class Reader(NamedTuple):
    """Lanes whose feeds one blocking read can name, and what makes a connection to the server that has them."""

    lanes: tuple[int, ...]
    connect: Callable[[], Awaitable[Any]]
    """Return a connection to the server that has the feeds now."""
    release: Callable[[Any], Awaitable[Any]]
    """Take a connection back."""


class KeysOfNode(NamedTuple):
    """Keys that one server has, and a client of that server, also for commands that name no key."""

    commands: Any
    keys: Sequence[str]


class Connections:
    """The asyncio clients of a process. Call `close` when done."""

    def __init__(self, node: Node, trips: ClientMetrics | None = None) -> None:
        self.trips = trips or ClientMetrics(VERBS)
        """Statistics of the calls to Redis. They stay empty if the clients of the node do not count."""
        self._node = node
        self.commands = node.commands
        """Commands that name a key each, and pipelines of such commands."""
        self.scripts = node.scripts
        self.queue = node.queue
        """Short scripts of many callers, which share round trips."""

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Return connections to the Redis of the settings. Nothing is sent yet."""
        trips = ClientMetrics(VERBS)
        return cls(Node.open(settings, trips), trips)

    @classmethod
    def of(cls, commands: "aioredis.Redis", blocking: "aioredis.Redis") -> Self:
        """Return connections over clients of one server, such as a double."""
        return cls(Node(commands, blocking))

    def readers(self, keyspace: Keyspace) -> list[Reader]:
        """Return the readers of the feeds. Together they have all lanes."""
        pool = self._node.blocking.connection_pool
        return [Reader(tuple(range(keyspace.lanes)), pool.get_connection, pool.release)]

    async def blocking(self, key: str) -> Any:
        """Return a client for reads of a key that block for up to `BLOCK_MS`."""
        return self._node.blocking

    def together(self, keys: Iterable[str]) -> list[list[str]]:
        """Divide keys into groups that one command can name."""
        return [list(keys)]

    def by_node(self, keys: Sequence[str]) -> list[KeysOfNode]:
        """Divide keys by the server that has them."""
        return [KeysOfNode(self.commands, keys)]

    async def masters(self) -> list[Any]:
        """Return a client of each server that accepts writes, for commands that name no key."""
        return [self.commands]

    async def check_master(self, key: str) -> None:
        """Raise `StorageUnavailable`, and end all connections to a key's server, if it is no longer the master."""
        await self._node.check_master()

    async def close(self) -> None:
        """Close every connection."""
        await self._node.close()
