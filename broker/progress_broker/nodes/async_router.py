"""The nodes of one Redis, for asyncio: which node serves a key, and which nodes are away."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import redis.exceptions

from progress_broker.nodes.node import Node
from progress_broker.nodes.redis_errors import text_of
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.discovery import ASK, EVERY_S, PATIENCE_S, discover
from progress_broker.routing.health import Health, NodeAway
from progress_broker.routing.plan import Learn, Part, Pause, Request, Step, carry
from progress_broker.routing.slots import SlotMap, slot_of

log = logging.getLogger(__name__)

_OUTDATED = ("CLUSTERDOWN", "READONLY", "MASTERDOWN", "UNBLOCKED")
"""Error codes that say that other nodes may have the slots by now."""

_LEAST_S, _FIRST_S, _SLOWER = 0.25, 1.0, 2.0
"""How long publishes of many wait for a node at least, how long at first, and how much longer than the last time."""

_UNREACHABLE = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
"""These classes themselves: those of wrong passwords, for example, derive from them."""

OpenNode = Callable[[RedisAddress, Callable[[Exception], None]], Node]
Send = Callable[[Node, Part], Awaitable[Mapping[int, Any]]]
"""Sends a part of a batch to its node, and returns the reply or the error of Redis to each of its commands."""


class Nodes:
    """The nodes of a Cluster. They are made as they are needed. Call `close` when done."""

    def __init__(self, address: RedisAddress, open_node: OpenNode) -> None:
        self.slots = SlotMap(address.reachable)
        self._address, self._open_node = address, open_node
        self._nodes: dict[Endpoint, Node] = {}
        self._health: dict[Endpoint, Health] = {}
        self._learning: asyncio.Task[Exception | None] | None = None
        self._learned_at = float("-inf")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._patience_s: dict[Endpoint, float] = {}
        """How long each node is waited for by those who are not patient."""
        self._late: dict[Endpoint, asyncio.Task[Mapping[int, Any]]] = {}
        """What nodes were sent, and for which nobody waits any more."""

    # Which node

    def node(self, endpoint: Endpoint) -> Node:
        """Return the node at an endpoint."""
        if endpoint not in self._nodes:
            self._nodes[endpoint] = self._open_node(
                self._address.at(endpoint), lambda error: self.heard(endpoint, error)
            )
        return self._nodes[endpoint]

    def away(self, endpoint: Endpoint) -> str | None:
        """Return why a node can't be reached now; None if it is well, as far as known."""
        health = self._health.get(endpoint)
        return None if health is None or health.away is None else f"{endpoint} is away: {health.away}"

    def well(self, key: str | bytes) -> Endpoint | None:
        """Return the node that serves a key, if it is known and well, as far as known."""
        owner = self.slots.owner(slot_of(key))
        return None if owner is None or self.away(owner) is not None else owner

    async def owner(self, key: str) -> Node:
        """Return the node that serves a key. Raises `NodeAway`, or why nobody could be asked."""
        slot = slot_of(key)
        owner = self.slots.owner(slot)
        if owner is None:
            error = await self.learn()
            owner = self.slots.owner(slot)
            if owner is None:
                raise error or NodeAway(f"no node serves slot {slot} now")
        reason = self.away(owner)
        if reason is not None:
            raise NodeAway(reason)
        return self.node(owner)

    async def masters(self) -> list[Node]:
        """Return the masters that are not away. Raises why nobody could be asked, if none is known."""
        if not self.slots.masters:
            error = await self.learn()
            if error is not None:
                raise error
        return [self.node(master) for master in self.slots.masters if self.away(master) is None]

    async def learn(self) -> Exception | None:
        """Ask who serves which slot, once for all who want to know. Return the error if nobody answers."""
        if self._learning is None:
            self._learning = self._spawn(self._discover())
        return await asyncio.shield(self._learning)

    # Sending

    async def carry(self, batch: Sequence[Request], send: Send, *, patient: bool = True) -> list[Any]:
        """Send commands to the nodes that have their keys. Return the reply or the error of Redis to each.

        Unless it is `patient`, it waits for no node much longer than that node took the last time. Commands then get
        `NodeAway`, and may still run. Until they are answered, others that are not patient get it at once.
        """
        carrying = carry(self.slots, self.away, batch)
        answer: Any = None
        while True:
            try:
                step = carrying.send(answer)
            except StopIteration as over:
                replies: list[Any] = over.value
                return replies
            answer = await self._take(step, send, patient=patient)

    async def _take(self, step: Step, send: Send, *, patient: bool) -> Any:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Learn):
            return await self.learn()
        if not patient and len(self.slots.masters) > 1:
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
                self._doubt(part.node, _late(part.node))
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
        except (redis.exceptions.RedisError, OSError) as error:
            return dict.fromkeys(part.places, self.failed(part.node, error))

    # Faults

    def failed(self, endpoint: Endpoint, error: Exception) -> Exception:
        """Draw the conclusions from an error of a call to a node. Return the error that its caller gets."""
        self.heard(endpoint, error)
        if type(error) in _UNREACHABLE or isinstance(error, OSError):
            return NodeAway(f"{endpoint}: {_reason(error)}")
        return error

    def heard(self, endpoint: Endpoint, error: Exception) -> None:
        """Draw the conclusions from an error of a node, or of a connection to it."""
        match error:
            case redis.exceptions.MovedError():
                owner = self.slots.reached(error.host, error.port, endpoint)
                if self.slots.owner(error.slot_id) != owner:
                    self.slots.patch(error.slot_id, owner, endpoint)
                self._want_to_learn()
            case NodeAway():
                pass
            case redis.exceptions.TimeoutError() | TimeoutError():
                self._doubt(endpoint, error, hangs=True)
            case redis.exceptions.ConnectionError() | OSError():
                self._doubt(endpoint, error)
            case redis.exceptions.RedisError() if text_of(error).startswith(_OUTDATED):
                self._want_to_learn()

    def _doubt(self, endpoint: Endpoint, error: Exception, *, hangs: bool = False) -> None:
        health = self._health.setdefault(endpoint, Health())
        if health.doubt(_reason(error), hangs=hangs):
            self._spawn(self._check(endpoint, health))

    async def _check(self, endpoint: Endpoint, health: Health) -> None:
        """Try a node until it answers, or has no slot any more. Nobody may be publishing, who would be redirected."""
        logged = False
        while self.slots.serves(endpoint):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.node(endpoint).ask("PING")
            except (redis.exceptions.RedisError, OSError) as error:
                delay_s = health.failed(_reason(error))
                if not logged:
                    log.warning("the Redis node %s is away: %s", endpoint, health.away)
                    logged = True
                self._want_to_learn()
                await asyncio.sleep(delay_s)
            else:
                break
        health.succeeded()
        if logged and self.slots.serves(endpoint):
            log.info("the Redis node %s is back", endpoint)

    def _want_to_learn(self) -> None:
        if self._learning is None:
            self._learning = self._spawn(self._discover())

    async def _discover(self) -> Exception | None:
        try:
            early_s = self._learned_at + EVERY_S - time.monotonic()
            if early_s > 0:
                await asyncio.sleep(early_s)
            self._learned_at = time.monotonic()
            asked_at, masters = self.slots.version, self.slots.masters
            well = [node for node in masters if self.away(node) is None]
            asking = discover(self.slots, (*well, *self.slots.replicas), self._address.seeds)
            reply: Any = None
            while True:
                try:
                    node = asking.send(reply)
                except StopIteration as over:
                    self.slots.take(over.value, asked_at)
                    break
                except redis.exceptions.RedisError as error:
                    return error
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        reply = await self.node(node).ask(*ASK)
                except (redis.exceptions.RedisError, OSError) as error:
                    reply = _as_redis_error(error)
            self._leave_others(masters)
            return None
        finally:
            self._learning = None

    def _leave_others(self, before: Sequence[Endpoint]) -> None:
        """Leave the nodes that have no slot any more: those who wait for one that hangs go on at its successor."""
        for endpoint in list(self._nodes):
            if self.slots.serves(endpoint):
                continue
            node = self._nodes.pop(endpoint)
            self._health.pop(endpoint, None)
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


def _reason(error: Exception) -> str:
    if type(error) is TimeoutError:  # of asking it here
        return f"no answer within {PATIENCE_S:g} s"
    return str(error) or type(error).__name__


def _as_redis_error(error: Exception) -> redis.exceptions.RedisError:
    if isinstance(error, redis.exceptions.RedisError):
        return error
    return redis.exceptions.ConnectionError(_reason(error))
