"""Several servers, each of which has a part of the lanes: what a Cluster is to those who name keys.

A command whose keys are of several slots is refused, as a Cluster does, also where one server has them all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.client import Pipeline

from progress_broker.nodes.calls import Call
from progress_broker.nodes.instrumented import ClientMetrics
from progress_broker.nodes.node import Node
from progress_broker.nodes.run import Scripts
from progress_broker.routing.slots import SLOTS, slot_of
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections, KeysOfNode, Reader
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import VERBS

_KEYLESS = {"TIME", "PING"}
"""Commands that any server may answer."""


def keys_of(words: Sequence[Any]) -> Sequence[Any]:
    """Return the keys that a command of the broker names; none if any server may answer it."""
    match words[0]:
        case "EVALSHA" | "EVAL":
            return words[3 : 3 + int(words[2])]
        case "XREAD":
            named = words[words.index("STREAMS") + 1 :]
            return named[: len(named) // 2]
        case "DEL" | "EXISTS":
            return words[1:]
        case name if name in _KEYLESS:
            return ()
    if len(words) < 2 or " " in words[0] or words[0] in ("INFO", "SCAN", "CONFIG", "CLIENT", "SCRIPT"):
        raise AssertionError(f"{words[0]} names no key: it must be sent to a server by name")
    return words[1:2]


class Shards(Connections):
    """Connections to several servers."""

    def __init__(self, nodes: Sequence[Node], trips: ClientMetrics) -> None:
        self.trips, self._nodes = trips, nodes
        self.commands = _Commands(self.node_of)
        self.scripts = _Scripts(self.node_of)
        self.queue: Any = _Queue(self.node_of)

    @classmethod
    def over(cls, servers: Iterable[Settings]) -> "Shards":
        """Return connections to the servers of these settings."""
        trips = ClientMetrics(VERBS)
        return cls([Node.open(settings, trips) for settings in servers], trips)

    def node_of(self, keys: Sequence[str | bytes]) -> Node:
        """Return the server that has these keys, which must be of one slot."""
        slots = {slot_of(key) for key in keys} or {0}
        assert len(slots) == 1, f"CROSSSLOT: {keys}"
        return self._nodes[slots.pop() * len(self._nodes) // SLOTS]

    def readers(self, keyspace: Keyspace) -> list[Reader]:
        nodes = [self.node_of([keyspace.lane(lane).feed]) for lane in range(keyspace.lanes)]
        pools = [node.blocking.connection_pool for node in nodes]
        return [Reader((lane,), pool.get_connection, pool.release) for lane, pool in enumerate(pools)]

    async def blocking(self, key: str) -> Any:
        return self.node_of([key]).blocking

    def together(self, keys: Iterable[str]) -> list[list[str]]:
        groups: dict[int, list[str]] = {}
        for key in keys:
            groups.setdefault(slot_of(key), []).append(key)
        return list(groups.values())

    def by_node(self, keys: Sequence[str]) -> list[KeysOfNode]:
        groups: dict[Node, list[str]] = {}
        for key in keys:
            groups.setdefault(self.node_of([key]), []).append(key)
        return [KeysOfNode(node.commands, some) for node, some in groups.items()]

    async def nodes(self) -> list[Node]:
        return list(self._nodes)

    async def close(self) -> None:
        for node in self._nodes:
            await node.close()


class _Commands(aioredis.Redis):
    """Sends each command to the server that has its keys."""

    def __init__(self, node_of: Any) -> None:
        super().__init__()
        self.node_of = node_of

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return await self.node_of(keys_of(args)).commands.execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "_Pipeline":
        assert not transaction
        pipeline = _Pipeline(self.connection_pool, {}, transaction, shard_hint)
        pipeline.node_of = self.node_of
        return pipeline


class _Pipeline(Pipeline):
    """Sends each server its part of the commands, and returns the replies in their order."""

    node_of: Any

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, self.command_stack = self.command_stack, []
        parts: dict[Node, list[int]] = {}
        for at, (words, _) in enumerate(commands):
            parts.setdefault(self.node_of(keys_of(words)), []).append(at)
        replies: list[Any] = [None] * len(commands)

        async def send(node: Node, places: Sequence[int]) -> None:
            async with node.commands.pipeline(transaction=False) as pipeline:
                for at in places:
                    words, options = commands[at]
                    pipeline.execute_command(*words, **options)
                for at, reply in zip(places, await _or_error(pipeline.execute(False), places), strict=True):
                    replies[at] = reply

        await asyncio.gather(*(send(node, places) for node, places in parts.items()))
        if raise_on_error and (errors := [reply for reply in replies if isinstance(reply, Exception)]):
            raise errors[0]
        return replies


class _Scripts(Scripts):
    """Runs scripts where their keys are, and loads them there."""

    def __init__(self, node_of: Any) -> None:
        self._node_of = node_of

    async def run(self, call: Call) -> Any:
        return await self._node_of(call.keys).scripts.run(call)

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        return await _in_parts(self._node_of, calls, lambda node, some: node.scripts.run_all(some))


class _Queue:
    """Hands each call to the queue of the server that has its keys."""

    def __init__(self, node_of: Any) -> None:
        self._node_of = node_of

    async def run(self, call: Call) -> Any:
        return await self._node_of(call.keys).queue.run(call)

    async def run_each(self, calls: Sequence[Call]) -> list[Any]:
        return await _in_parts(self._node_of, calls, lambda node, some: _or_error(node.queue.replies(some), some))


async def _or_error(replies: Awaitable[list[Any]], asked: Sequence[object]) -> list[Any]:
    """Return replies; if the server does not answer, its error to each."""
    try:
        return await replies
    except (redis.exceptions.RedisError, OSError) as error:
        return [error] * len(asked)


async def _in_parts(
    node_of: Any, calls: Sequence[Call], run: Callable[[Node, Sequence[Call]], Awaitable[Sequence[Any]]]
) -> list[Any]:
    """Run calls where their keys are; return their replies in order."""
    parts: dict[Node, list[int]] = {}
    for at, call in enumerate(calls):
        parts.setdefault(node_of(call.keys), []).append(at)
    replies: list[Any] = [None] * len(calls)

    async def send(node: Node, places: Sequence[int]) -> None:
        for at, reply in zip(places, await run(node, [calls[at] for at in places]), strict=True):
            replies[at] = reply

    await asyncio.gather(*(send(node, places) for node, places in parts.items()))
    return replies
