"""The nodes of a Cluster, for threads: which node serves a key, which nodes are away, and batches for many of them."""

import logging
import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import redis
import redis.exceptions

from progress_broker.nodes.redis_errors import text_of
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.discovery import ASK, EVERY_S, PATIENCE_S, WHILE_AWAY_S, discover
from progress_broker.routing.health import NodeAway
from progress_broker.routing.plan import Learn, Part, Pause, Request, Step, carry
from progress_broker.routing.slots import SlotMap, slot_of
from progress_broker.settings import Settings
from progress_workers.core.wakeup import Wakeup
from progress_workers.transport.daemon import Background
from progress_workers.transport.over_redis.cluster.node import ClusterNode, Commands, Waits
from progress_workers.transport.over_redis.cluster.node_thread import Work

logger = logging.getLogger(__name__)

RUN_S = 0.8
"""How long a call of a single script waits for a node, when the process uses several."""

_OUTDATED = ("CLUSTERDOWN", "READONLY", "MASTERDOWN", "UNBLOCKED")
"""Error codes that say that other nodes may have the slots by now."""
_LEARN_S = 5.0
"""How long to wait at most for another thread that asks who has which slot."""


class NodeLate(redis.exceptions.ConnectionError):
    """A node does not answer yet. The command may have run, or may still run."""


class ClusterNodes:
    """The nodes of a Cluster, which are made as they are needed."""

    def __init__(self, settings: Settings, address: RedisAddress) -> None:
        self.settings, self.address = settings, address
        self.slots = SlotMap(address.reachable)
        self._nodes: dict[Endpoint, ClusterNode] = {}
        self._used: dict[Endpoint, None] = {}
        """The nodes that were sent publishes."""
        self._learning = Lock()
        self._learned_at = float("-inf")
        self._wanted = False
        self._doubted: dict[Endpoint, float] = {}
        """The nodes to try, each with when."""
        self._wakeup = Wakeup()
        self._thread = Background("progress-nodes", self._watch)

    # Which node

    def node(self, endpoint: Endpoint) -> ClusterNode:
        """Return the node at an endpoint."""
        found = self._nodes.get(endpoint)
        return found or self._nodes.setdefault(endpoint, ClusterNode(self.settings, self.address, endpoint, self.heard))

    def away(self, endpoint: Endpoint) -> str | None:
        """Return why a node can't be reached now; None if it is well, as far as known."""
        found = self._nodes.get(endpoint)
        return None if found is None or found.health.away is None else f"{endpoint} is away: {found.health.away}"

    @property
    def all_away(self) -> bool:
        """Whether no node can be reached now, as far as known."""
        return all(self.away(master) is not None for master in self.slots.masters)

    def owner(self, key: str) -> ClusterNode:
        """Return the node that serves a key. Raises `NodeAway`, or why nobody could be asked."""
        slot = slot_of(key)
        owner = self.slots.owner(slot)
        if owner is None:
            error = self._learn()
            owner = self.slots.owner(slot)
            if owner is None:
                raise error or NodeAway(f"no node serves slot {slot} now")
        reason = self.away(owner)
        if reason is not None:
            raise NodeAway(reason)
        return self.node(owner)

    # Sending

    def carry(
        self,
        commands: Commands,
        scripts: Sequence[str | None],
        patience_s: float | None = None,
        waits: Waits | None = None,
    ) -> list[Any]:
        """Send commands, each with the text of the script that it runs. Return replies, and errors in their places.

        As soon as the process uses several nodes, no node is waited for longer than others by more than `patience_s`,
        or what it usually takes: then the reply is `NodeLate`.
        """
        batch = [Request(words, script) for (words, _), script in zip(commands, scripts, strict=True)]
        carrying, waits = carry(self.slots, self.away, batch), waits or Waits()
        answer: Any = None
        while True:
            try:
                step = carrying.send(answer)
            except StopIteration as over:
                replies: list[Any] = over.value
                return replies
            answer = self._take(step, commands, patience_s, waits)

    def _take(self, step: Step, commands: Commands, patience_s: float | None, waits: Waits) -> Any:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Learn):
            return self._learn()
        if patience_s is None:
            return self._send_here(step, commands, waits)
        self._used.update(dict.fromkeys(part.node for part in step))
        if len(self._used) == 1:
            return self._send_here(step, commands, waits)
        return self._send_all(step, commands, patience_s, waits)

    def _send_here(self, parts: Sequence[Part], commands: Commands, waits: Waits) -> Mapping[int, Any]:
        replies: dict[int, Any] = {}
        for part in parts:
            replies |= self._send(part, commands, waits)
        return replies

    def _send_all(
        self, parts: Sequence[Part], commands: Commands, patience_s: float, waits: Waits
    ) -> Mapping[int, Any]:
        """Send all parts at once, each in its node's thread."""
        over, began = Wakeup(), time.monotonic()
        replies: dict[int, Any] = {}
        under_way: list[tuple[Part, ClusterNode, Work]] = []
        for part in parts:
            node = self.node(part.node)
            if node.thread.late:
                replies |= dict.fromkeys(part.places, _late(node))
                continue
            work = Work(lambda part=part: self._send(part, commands, waits), over)  # type: ignore[misc]
            if node.thread.submit(work):
                under_way.append((part, node, work))
            else:
                replies |= self._send(part, commands, waits)
        for part, node, work in under_way:
            until = began + max(patience_s, node.thread.patience_s) + waits.most_ms / 1000
            while not work.done and (left_s := until - time.monotonic()) > 0:
                over.wait(left_s)
            if work.error is not None:
                raise work.error
            if work.done:
                replies |= work.result
            else:
                node.thread.give_up(work)
                self._doubt(node, f"it did not answer within {until - began:.2g} s", hangs=True)
                replies |= dict.fromkeys(part.places, _late(node))
        return replies

    def _send(self, part: Part, commands: Commands, waits: Waits) -> Mapping[int, Any]:
        node = self.node(part.node)
        try:
            return node.send(part, commands, waits)
        except (redis.exceptions.RedisError, OSError) as error:
            node.heard(error)
            return dict.fromkeys(part.places, error)

    # Faults

    def heard(self, endpoint: Endpoint, error: Exception) -> None:
        """Draw the conclusions from an error of a node, or of a connection to it."""
        match error:
            case redis.exceptions.MovedError():
                owner = self.slots.reached(error.host, error.port, endpoint)
                if self.slots.owner(error.slot_id) != owner:
                    self.slots.patch(error.slot_id, owner, endpoint)
                self._want_to_learn()
            case NodeAway() | NodeLate():
                pass
            case redis.exceptions.TimeoutError() | TimeoutError():
                self._doubt(self.node(endpoint), _reason(error), hangs=True)
            case redis.exceptions.ConnectionError() | OSError():
                self._doubt(self.node(endpoint), _reason(error))
            case redis.exceptions.RedisError() if text_of(error).startswith(_OUTDATED):
                self._want_to_learn()

    def _doubt(self, node: ClusterNode, reason: str, *, hangs: bool = False) -> None:
        if node.health.doubt(reason, hangs=hangs):
            self._doubted[node.endpoint] = time.monotonic()
            self._want_to_learn()

    def _want_to_learn(self) -> None:
        self._wanted = True
        self._wakeup.set()
        self._thread.start()

    def _watch(self) -> None:
        """Try nodes that are in doubt, and ask who has which slot. It sleeps while all is well."""
        while True:
            self._wakeup.wait(self._next_at() - time.monotonic())
            self._wakeup.clear()
            try:
                now = time.monotonic()
                if now >= self._learned_at + (EVERY_S if self._wanted else WHILE_AWAY_S):
                    self._learn()
                for endpoint, at in list(self._doubted.items()):
                    if at <= now:
                        self._check(self.node(endpoint))
            except Exception:
                logger.exception("watching the nodes of Redis failed; it is retried")
                time.sleep(PATIENCE_S)

    def _next_at(self) -> float:
        if self._wanted:
            return self._learned_at + EVERY_S
        if not self._doubted:
            return float("inf")
        return min(self._learned_at + WHILE_AWAY_S, *self._doubted.values())

    def _check(self, node: ClusterNode) -> None:
        """Try a node. Nobody may be publishing, who would be told that it is back, or redirected."""
        if self.slots.serves(node.endpoint):
            try:
                node.ask("PING")
            except (redis.exceptions.RedisError, OSError) as error:
                self._doubted[node.endpoint] = time.monotonic() + node.health.failed(_reason(error))
                if not node.told:
                    node.told = True
                    logger.warning(
                        "the Redis node %s is away, so what belongs there is buffered and sent again later: %s",
                        node.endpoint,
                        node.health.away,
                    )
                return
            if node.told:
                node.told = False
                logger.info("the Redis node %s is back", node.endpoint)
        self._doubted.pop(node.endpoint, None)
        node.health.succeeded()

    def _learn(self) -> Exception | None:
        """Ask who has which slot, once for all who want to know. Return the error if nobody answers."""
        asked_before = self._learned_at
        if not self._learning.acquire(timeout=_LEARN_S):  # its thread may have stopped with the interpreter
            return redis.exceptions.ConnectionError("the nodes of Redis do not answer")
        try:
            if self._learned_at != asked_before and not self._wanted:
                return None  # another thread has just asked
            self._wanted = False
            return self._discover()
        finally:
            self._learning.release()

    def _discover(self) -> Exception | None:
        asked_at, masters = self.slots.version, self.slots.masters
        well = [node for node in masters if self.away(node) is None]
        asking = discover(self.slots, (*well, *self.slots.replicas), self.address.seeds)
        reply: Any = None
        try:
            while True:
                try:
                    node = asking.send(reply)
                except StopIteration as over:
                    self.slots.take(over.value, asked_at)
                    break
                except redis.exceptions.RedisError as error:
                    return error
                try:
                    reply = self.node(node).ask(*ASK)
                except redis.exceptions.RedisError as error:
                    reply = error
                except OSError as error:
                    reply = redis.exceptions.ConnectionError(_reason(error))
        finally:
            self._learned_at = time.monotonic()
        for endpoint in list(self._nodes):
            if not self.slots.serves(endpoint):
                self._nodes.pop(endpoint).leave()
                self._used.pop(endpoint, None)
                self._doubted.pop(endpoint, None)
        return None


def _late(node: ClusterNode) -> NodeLate:
    return NodeLate(f"{node.endpoint} does not answer yet")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
