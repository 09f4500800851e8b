"""The nodes of a Cluster, for asyncio: connections to them, batches for many of them, and what is asked meanwhile."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from progress_broker.nodes.node import Node
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.discovery import ASK, EVERY_S, PATIENCE_S
from progress_broker.routing.health import NodeAway
from progress_broker.routing.known_nodes import Conclusion, KnownNodes, of_node
from progress_broker.routing.plan import Learn, Part, Pause, Request, Step, carry
from progress_broker.routing.server_errors import FAILURES, reason_of
from progress_broker.routing.slots import slot_of
from progress_broker.runtime.steps import run_steps_async

log = logging.getLogger(__name__)

_LEAST_S, _FIRST_S, _SLOWER = 0.25, 1.0, 2.0
"""How long publishes of many wait for a node at least, how long at first, and how much longer than the last time."""

OpenNode = Callable[[RedisAddress, Callable[[Exception], None]], Node]
Send = Callable[[Node, Part], Awaitable[Mapping[int, Any]]]
"""Sends a part of a batch to its node, and returns the reply or the error of Redis to each of its commands."""


class Nodes:
    """The nodes of a Cluster. They are made as they are needed. Call `close` when done."""

    def __init__(self, address: RedisAddress, open_node: OpenNode) -> None:
        self.known = KnownNodes(address)
        """Which node serves a key, and which nodes are away."""
        self._address, self._open_node = address, open_node
        self._nodes: dict[Endpoint, Node] = {}
        self._learning: asyncio.Task[Exception | None] | None = None
        self._learned_at = float("-inf")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._patience_s: dict[Endpoint, float] = {}
        """How long each node is waited for by those who are not patient."""
        self._late: dict[Endpoint, asyncio.Task[Mapping[int, Any]]] = {}
        """What nodes were sent, and for which nobody waits any more."""

    def node(self, endpoint: Endpoint) -> Node:
        """Return the node at an endpoint."""
        if endpoint not in self._nodes:
            self._nodes[endpoint] = self._open_node(
                self._address.at(endpoint), lambda error: self.heard(endpoint, error)
            )
        return self._nodes[endpoint]

    async def owner(self, key: str) -> Node:
        """Return the node that serves a key. Raises `NodeAway`, or why nobody could be asked."""
        unknown = await self.learn() if self.known.slots.owner(slot_of(key)) is None else None
        return self.node(self.known.owner(key, unknown))

    async def masters(self) -> list[Node]:
        """Return the masters that are not away. Raises why nobody could be asked, if none is known."""
        if not self.known.slots.masters:
            error = await self.learn()
            if error is not None:
                raise error
        return [self.node(master) for master in self.known.well]

    async def learn(self) -> Exception | None:
        """Ask who serves which slot, once for all who want to know. Return the error if nobody answers."""
        return await asyncio.shield(self._want_to_learn())

    # Sending

    async def carry(self, batch: Sequence[Request], send: Send, *, patient: bool = True) -> list[Any]:
        """Send commands to the nodes that have their keys. Return the reply or the error of Redis to each.

        Unless it is `patient`, it waits for no node much longer than that node took the last time. Commands then get
        `NodeAway`, and may still run. Until they are answered, others that are not patient get it at once.
        """
        rules = carry(self.known.slots, self.known.away, batch)
        return await run_steps_async(rules, lambda step: self._take(step, send, patient=patient))

    async def _take(self, step: Step, send: Send, *, patient: bool) -> Any:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Learn):
            return await self.learn()
        if not patient and len(self.known.slots.masters) > 1:
            return await self._send_in_time(step, send)
        if len(step) == 1:
            return await self._send(step[0], send)
        replies: dict[int, Any] = {}
        for part in await asyncio.gather(*(self._send(part, send) for part in step)):
            replies |= part
        return replies

    async def _send_in_time(self, parts: Sequence[Part], send: Send) -> Mapping[int, Any]:
        replies: dict[int, Any] = {}
        under_way: list[tuple[Part, asyncio.Task[Mapping[int, Any]]]] = []
        began = time.monotonic()
        for part in parts:
            late = self._late.get(part.node)
            if late is None or late.done():
                under_way.append((part, self._spawn(self._measured(part, send))))
            else:
                replies |= dict.fromkeys(part.places, _late(part.node))
        for part, task in under_way:
            left_s = began + self._patience_s.get(part.node, _FIRST_S) - time.monotonic()
            if not task.done():
                await asyncio.wait((task,), timeout=max(0.0, left_s))
            if task.done():
                replies |= task.result()
            else:
                self._late[part.node] = task
                self._conclude(part.node, self.known.doubt(part.node, str(_late(part.node))))
                replies |= dict.fromkeys(part.places, _late(part.node))
        return replies

    async def _measured(self, part: Part, send: Send) -> Mapping[int, Any]:
        began = time.monotonic()
        replies = await self._send(part, send)
        if not any(isinstance(reply, NodeAway) for reply in replies.values()):  # a slow node is waited for next time
            self._patience_s[part.node] = max(_LEAST_S, _SLOWER * (time.monotonic() - began))
        return replies

    async def _send(self, part: Part, send: Send) -> Mapping[int, Any]:
        try:
            return await send(self.node(part.node), part)
        except FAILURES as error:
            return dict.fromkeys(part.places, self.failed(part.node, error))

    # Faults

    def failed(self, endpoint: Endpoint, error: Exception) -> Exception:
        """Draw the conclusions from an error of a call to a node. Return the error that its caller gets."""
        self.heard(endpoint, error)
        return of_node(endpoint, error)

    def heard(self, endpoint: Endpoint, error: Exception) -> None:
        """Draw the conclusions from an error of a node, or of a connection to it."""
        self._conclude(endpoint, self.known.heard(endpoint, error))

    def _conclude(self, endpoint: Endpoint, conclusion: Conclusion) -> None:
        if conclusion.check:
            self._spawn(self._check(endpoint))
        if conclusion.learn:
            self._want_to_learn()

    async def _check(self, endpoint: Endpoint) -> None:
        """Try a node until it answers, or has no slot any more. Nobody may be publishing, who would be redirected."""
        health, slots, logged = self.known.health(endpoint), self.known.slots, False
        while slots.serves(endpoint):
            try:
                await self._ask(endpoint, "PING")
            except FAILURES as error:
                delay_s = health.failed(reason_of(error))
                if not logged:
                    log.warning("the Redis node %s is away: %s", endpoint, health.away)
                    logged = True
                self._want_to_learn()
                await asyncio.sleep(delay_s)
            else:
                break
        health.succeeded()
        if logged and slots.serves(endpoint):
            log.info("the Redis node %s is back", endpoint)

    async def _ask(self, endpoint: Endpoint, *words: str) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await self.node(endpoint).ask(*words)

    def _want_to_learn(self) -> "asyncio.Task[Exception | None]":
        if self._learning is None:
            self._learning = self._spawn(self._discover())
        return self._learning

    async def _discover(self) -> Exception | None:
        try:
            early_s = self._learned_at + EVERY_S - time.monotonic()
            if early_s > 0:
                await asyncio.sleep(early_s)
            self._learned_at, before = time.monotonic(), self.known.slots.masters
            error = await run_steps_async(self.known.discovery(), lambda node: self._ask(node, *ASK), FAILURES)
            if error is None:
                self._leave_others(before)
            return error
        finally:
            self._learning = None

    def _leave_others(self, before: Sequence[Endpoint]) -> None:
        """Leave the nodes that have no slot any more: those who wait for one that hangs go on at its successor."""
        for endpoint in list(self._nodes):
            if self.known.slots.serves(endpoint):
                continue
            node = self._nodes.pop(endpoint)
            self.known.leave(endpoint)
            self._patience_s.pop(endpoint, None)
            self._late.pop(endpoint, None)
            if endpoint in before:
                log.info("the Redis node %s serves no keys any more", endpoint)
            self._spawn(node.leave())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("watching the nodes of Redis failed", exc_info=task.exception())

    async def close(self) -> None:
        """Answer what the queues were asked for, and close every connection."""
        nodes, self._nodes = list(self._nodes.values()), {}
        await asyncio.gather(*(node.close() for node in nodes))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _late(endpoint: Endpoint) -> NodeAway:
    return NodeAway(f"{endpoint} does not answer yet")
