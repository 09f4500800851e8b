"""What a process uses like one Redis, and what sends each command to the node that has its key."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from progress_broker.nodes.async_router import Nodes
from progress_broker.nodes.calls import Call
from progress_broker.nodes.node import Node
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.nodes.run import Scripts
from progress_broker.routing.address import Endpoint
from progress_broker.routing.command_keys import key_of
from progress_broker.routing.plan import Part, Request, did_not_run

Command = tuple[Sequence[Any], Mapping[str, Any]]
"""The words of a command, and the client library's options for its reply."""


class RoutedRedis(aioredis.Redis):
    """The library's methods; each command goes to the node that has its key, or to the node that was named.

    Commands that name no key, and mean one server, raise `ValueError`: see `Connections.masters`.
    """

    def __init__(self, nodes: Nodes, client_of: Callable[[Node], Any], node: Endpoint | None = None) -> None:
        super().__init__()  # its pool is never used
        self._nodes, self._client_of, self._node = nodes, client_of, node

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command."""
        key = key_of(args)
        node = None if key is None else self._nodes.known.find(key)
        if node is not None:  # as usual; the rest is for what is not
            try:
                return await self._client_of(self._nodes.node(node)).execute_command(*args, **options)
            except (RedisError, OSError) as error:
                failure = self._nodes.failed(node, error)
                if not did_not_run(error):
                    raise failure from None
        (reply,) = await self.carry([(args, options)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def carry(self, commands: Sequence[Command], scripts: Sequence[str | None] = ()) -> list[Any]:
        """Send commands, each with the text of the script that it runs. Return replies and errors of Redis."""

        async def send(node: Node, part: Part) -> Mapping[int, Any]:
            return await _send(self._client_of(node), commands, part)

        texts = scripts or [None] * len(commands)
        requests = [Request(words, text, self._node) for (words, _), text in zip(commands, texts, strict=True)]
        return await self._nodes.carry(requests, send)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "RoutedPipeline":
        """Return a pipeline. Each node gets its part of the commands, at the same time."""
        if transaction:
            raise ValueError("a Cluster has no transactions over several keys")
        pipeline = RoutedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.routed = self
        return pipeline


class RoutedPipeline(Pipeline):
    """Commands that are sent to several nodes at the same time."""

    routed: RoutedRedis

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands, and return the replies in the commands' order."""
        commands, self.command_stack = self.command_stack, []
        if not commands:
            return []
        replies = await self.routed.carry(commands)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


class RoutedScripts(Scripts):
    """Runs scripts at the nodes that have their keys."""

    def __init__(self, client: RoutedRedis, nodes: Nodes) -> None:
        self._routed, self._nodes = client, nodes

    async def run(self, call: Call) -> Any:
        """Run a script, and return its reply."""
        (reply,) = await self.run_all([call])
        return reply

    async def waits(self, call: Call) -> bool:
        """Return whether the node that a call goes to has replicas, for which `durable` waits."""
        at = self._nodes.known.find(call.keys[0])
        return at is not None and await self._nodes.node(at).scripts.waits(call)

    async def durable(self, call: Call, most_ms: int) -> tuple[Any, bool | None]:
        """Run a script, and wait until replicas of its node have what it wrote; see `Scripts.durable`."""
        at = self._nodes.known.find(call.keys[0])
        if at is None or not await self._nodes.node(at).scripts.waits(call):
            return await self.run(call), None
        with storage_errors():
            try:
                reply, confirmed = await self._nodes.node(at).scripts.durable_reply(call, most_ms)
            except (RedisError, OSError) as error:
                raise self._nodes.failed(at, error) from None
        if did_not_run(reply):
            return await self.run(call), None
        if isinstance(reply, Exception):
            with storage_errors():
                raise reply
        return reply, confirmed

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run independent scripts and return their replies. Raise the first error of Redis itself."""
        commands: list[Command] = [(call.command(), {}) for call in calls]
        with storage_errors():
            replies = await self._routed.carry(commands, [call.script.text for call in calls])
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


class RoutedQueue:
    """Hands scripts to the queues of the nodes that have their keys."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def run(self, call: Call) -> Any:
        """Run a script; return its reply."""
        with storage_errors():
            node = self._nodes.known.find(call.keys[0])
            if node is not None:  # as usual; the rest is for what is not
                try:
                    (reply,) = await self._nodes.node(node).queue.replies([call])
                except (RedisError, OSError) as error:
                    raise self._nodes.failed(node, error) from None
            if node is None or did_not_run(reply):
                (reply,) = await self.run_each([call])
            if isinstance(reply, Exception):
                raise reply
        return reply

    async def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return their replies, or the errors of Redis with which single ones failed.

        No node is waited for much longer than it usually takes: its scripts are answered `NodeAway`, and may still run.
        """

        async def send(node: Node, part: Part) -> Mapping[int, Any]:
            replies = await node.queue.replies([calls[at] for at in part.places])
            return dict(zip(part.places, replies, strict=True))

        # The queue makes the whole command. Only its key is needed here.
        requests = [Request(("EVALSHA", call.script.sha, 1, call.keys[0]), call.script.text) for call in calls]
        return await self._nodes.carry(requests, send, patient=False)


async def _send(client: Any, commands: Sequence[Command], part: Part) -> Mapping[int, Any]:
    if len(part.places) == 1 and not part.asking and not part.load:
        (at,) = part.places
        words, options = commands[at]
        try:
            return {at: await client.execute_command(*words, **options)}
        except ResponseError as error:
            return {at: error}
    wanted: list[int] = []
    async with client.pipeline(transaction=False) as pipeline:
        for text in part.load:
            pipeline.execute_command("SCRIPT LOAD", text)
        for at in part.places:
            if at in part.asking:
                pipeline.execute_command("ASKING")
            wanted.append(len(pipeline.command_stack))
            words, options = commands[at]
            pipeline.execute_command(*words, **options)
        replies = await pipeline.execute(raise_on_error=False)
    return {at: replies[place] for at, place in zip(part.places, wanted, strict=True)}
