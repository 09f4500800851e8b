"""The way to Redis. Callers name keys, and never a server.

One server serves all keys, or the nodes of a Cluster, each of them some hash slots.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import redis.asyncio as aioredis
import redis.exceptions

from progress_broker.nodes.async_router import Nodes
from progress_broker.nodes.instrumented import ClientMetrics
from progress_broker.nodes.node import Node, unparsed
from progress_broker.nodes.pool_settings import address_of
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.nodes.routed import RoutedQueue, RoutedRedis, RoutedScripts
from progress_broker.routing.address import Endpoint
from progress_broker.routing.slots import slot_of
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
    """The asyncio clients of a process, here of one server. Call `close` when done."""

    replicated = False
    """Whether servers are expected to have replicas, as those of a Sentinel set and of a Cluster are."""

    def __init__(self, node: Node, trips: ClientMetrics | None = None, *, replicated: bool = False) -> None:
        self.trips = trips or ClientMetrics(VERBS)
        """Statistics of the calls to Redis. They stay empty if the clients of the node do not count."""
        self._node, self.replicated = node, replicated
        self.commands = node.commands
        """Commands that name a key each, and pipelines of such commands."""
        self.scripts = node.scripts
        self.queue = node.queue
        """Short scripts of many callers, which share round trips."""

    @staticmethod
    def open(settings: Settings) -> "Connections":
        """Return connections to the Redis of the settings. Nothing is sent yet."""
        trips, address = ClientMetrics(VERBS), address_of(settings)
        if address.kind != "cluster":
            return Connections(Node.open(settings, trips, address), trips, replicated=address.kind == "sentinel")
        return RoutedConnections(Nodes(address, partial(Node.open, settings, trips)), trips)

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

    async def nodes(self) -> list[Node]:
        """Return each server that accepts writes."""
        return [self._node]

    async def masters(self) -> list[Any]:
        """Return a client of each server that accepts writes, for commands that name no key."""
        return [node.commands for node in await self.nodes()]

    async def close(self) -> None:
        """Close every connection."""
        await self._node.close()


class RoutedConnections(Connections):
    """The asyncio clients of the nodes of a Cluster. Call `close` when done.

    The map of slots is asked for with the first command.
    """

    replicated = True

    def __init__(self, nodes: Nodes, trips: ClientMetrics) -> None:
        self.trips, self._nodes = trips, nodes
        self.commands = unparsed(RoutedRedis(nodes, _commands_of))
        self.scripts = RoutedScripts(self.commands, nodes)
        self.queue: Any = RoutedQueue(nodes)
        self._blocking = unparsed(RoutedRedis(nodes, _blocking_of))
        self._clients: dict[Endpoint | None, RoutedRedis] = {}  # that send what names no key to a node
        self._pools: dict[Any, Any] = {}  # of the readers' connections

    def readers(self, keyspace: Keyspace) -> list[Reader]:
        """Return a reader for each lane: one read can name the keys of one slot."""
        return [
            Reader((lane,), partial(self._connect, keyspace.lane(lane).feed), self._release)
            for lane in range(keyspace.lanes)
        ]

    async def _connect(self, feed: str) -> Any:
        node = await self._nodes.owner(feed)
        pool: Any = node.blocking.connection_pool
        try:
            connection = await pool.get_connection()
        except (redis.exceptions.RedisError, OSError) as error:
            node.heard(error)
            raise
        self._pools[connection] = pool
        return connection

    async def _release(self, connection: Any) -> None:
        await self._pools.pop(connection).release(connection)

    async def blocking(self, key: str) -> Any:
        """Return a client for reads of a key that block for up to `BLOCK_MS`."""
        return self._blocking

    def together(self, keys: Iterable[str]) -> list[list[str]]:
        """Divide keys by their slots."""
        groups: dict[int, list[str]] = {}
        for key in keys:
            groups.setdefault(slot_of(key), []).append(key)
        return list(groups.values())

    def by_node(self, keys: Sequence[str]) -> list[KeysOfNode]:
        """Divide keys by the node that has them, as far as is known."""
        groups: dict[Endpoint | None, list[str]] = {}
        for key in keys:
            groups.setdefault(self._nodes.known.slots.owner(slot_of(key)), []).append(key)
        return [KeysOfNode(self._at(node), some) for node, some in groups.items()]

    def _at(self, node: Endpoint | None) -> RoutedRedis:
        if node not in self._clients:
            self._clients[node] = RoutedRedis(self._nodes, _commands_of, node)
        return self._clients[node]

    async def nodes(self) -> list[Node]:
        """Return each master, except those that are away."""
        with storage_errors():
            return await self._nodes.masters()

    async def close(self) -> None:
        """Close every connection."""
        await self._nodes.close()


def _commands_of(node: Node) -> Any:
    return node.commands


def _blocking_of(node: Node) -> Any:
    return node.blocking
