"""The nodes of a Cluster, for threads: which node serves a key, which nodes are away, and batches for many of them."""

import logging
import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import redis.exceptions

from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.discovery import ASK, EVERY_S, PATIENCE_S, WHILE_AWAY_S
from progress_broker.routing.health import NodeAway
from progress_broker.routing.known_nodes import Conclusion, KnownNodes
from progress_broker.routing.plan import Learn, Part, Pause, Request, Step, carry
from progress_broker.routing.server_errors import FAILURES, reason_of
from progress_broker.routing.slots import slot_of
from progress_broker.runtime.steps import run_steps
from progress_broker.settings import Settings
from progress_workers.core.wakeup import Wakeup
from progress_workers.transport.daemon import Background
from progress_workers.transport.over_redis.cluster.node import ClusterNode, Commands, Waits
from progress_workers.transport.over_redis.cluster.node_thread import Work

logger = logging.getLogger(__name__)

RUN_S = 0.8
"""How long a call of a single script waits for a node, when the process uses several."""

_LEARN_S = 5.0
"""How long to wait at most for another thread that asks who has which slot."""


class ClusterNodes:
    """The nodes of a Cluster, which are made as they are needed."""

    def __init__(self, settings: Settings, address: RedisAddress) -> None:
        self.settings, self.address = settings, address
        self.known = KnownNodes(address)
        """Which node serves a key, and which nodes are away."""
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

    def node(self, endpoint: Endpoint) -> ClusterNode:
        """Return the node at an endpoint."""
        found = self._nodes.get(endpoint)
        return found or self._nodes.setdefault(endpoint, ClusterNode(self.settings, self.address, endpoint, self.heard))

    def owner(self, key: str) -> ClusterNode:
        """Return the node that serves a key. Raises `NodeAway`, or why nobody could be asked."""
        unknown = self._learn() if self.known.slots.owner(slot_of(key)) is None else None
        return self.node(self.known.owner(key, unknown))

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
        or what it usually takes: then the reply is `NodeAway`, and the command may still run.
        """
        batch = [Request(words, script) for (words, _), script in zip(commands, scripts, strict=True)]
        rules, waiting = carry(self.known.slots, self.known.away, batch), waits or Waits()
        return run_steps(rules, lambda step: self._take(step, commands, patience_s, waiting))

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
                reason = f"it did not answer within {until - began:.2g} s"
                self._conclude(part.node, self.known.doubt(part.node, reason, hangs=True))
                replies |= dict.fromkeys(part.places, _late(node))
        return replies

    def _send(self, part: Part, commands: Commands, waits: Waits) -> Mapping[int, Any]:
        node = self.node(part.node)
        try:
            return node.send(part, commands, waits)
        except FAILURES as error:
            node.heard(error)
            return dict.fromkeys(part.places, error)

    # Faults

    def heard(self, endpoint: Endpoint, error: Exception) -> None:
        """Draw the conclusions from an error of a node, or of a connection to it."""
        self._conclude(endpoint, self.known.heard(endpoint, error))

    def _conclude(self, endpoint: Endpoint, conclusion: Conclusion) -> None:
        if conclusion.check:
            self._doubted[endpoint] = time.monotonic()
        if conclusion.check or conclusion.learn:
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
        health = self.known.health(node.endpoint)
        if self.known.slots.serves(node.endpoint):
            try:
                node.ask("PING")
            except FAILURES as error:
                self._doubted[node.endpoint] = time.monotonic() + health.failed(reason_of(error))
                if not node.told:
                    node.told = True
                    logger.warning(
                        "the Redis node %s is away, so what belongs there is buffered and sent again later: %s",
                        node.endpoint,
                        health.away,
                    )
                return
            if node.told:
                node.told = False
                logger.info("the Redis node %s is back", node.endpoint)
        self._doubted.pop(node.endpoint, None)
        health.succeeded()

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
        try:
            error = run_steps(self.known.discovery(), lambda node: self.node(node).ask(*ASK), FAILURES)
        finally:
            self._learned_at = time.monotonic()
        for endpoint in list(self._nodes) if error is None else ():
            if not self.known.slots.serves(endpoint):
                self._nodes.pop(endpoint).leave()
                self.known.leave(endpoint)
                self._used.pop(endpoint, None)
                self._doubted.pop(endpoint, None)
        return error


def _late(node: ClusterNode) -> NodeAway:
    return NodeAway(f"{node.endpoint} does not answer yet")
