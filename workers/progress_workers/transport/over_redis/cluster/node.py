"""One node of a Cluster, for threads."""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.exceptions

from progress_broker.nodes.generations import ConnectionGeneration
from progress_broker.nodes.node import connect, unparsed
from progress_broker.nodes.replicas import ROLE, Wait, replicas_of
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.discovery import PATIENCE_S
from progress_broker.routing.plan import Part
from progress_broker.settings import Settings
from progress_workers.core.wakeup import Wakeup
from progress_workers.transport.over_redis.cluster.node_thread import NodeThread, Work

Commands = Sequence[tuple[Sequence[Any], Mapping[str, Any]]]
"""Commands: the words of each, and the client library's options for its reply."""


class Waits:
    """Which commands of a batch wait for replicas, for how long, and what came of it."""

    def __init__(self, durable: frozenset[int] = frozenset(), most_ms: int = 0) -> None:
        self.durable, self.most_ms = durable, most_ms
        self.confirmed: dict[int, bool | None] = {}


class ClusterNode:
    """One node: its connections, and what is known about it."""

    def __init__(
        self,
        settings: Settings,
        address: RedisAddress,
        endpoint: Endpoint,
        heard: Callable[[Endpoint, Exception], None],
    ) -> None:
        self._settings, self._address, self.endpoint, self._heard = settings, address.at(endpoint), endpoint, heard
        self._generation = ConnectionGeneration(kind="cluster", heard=self.heard)
        self.client: Any = self._connect()
        self._blocking: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.thread = NodeThread(f"progress-node-{endpoint}")
        self._replicas = replicas_of(address, settings)
        self._generation.remade = self._replicas.forget
        self.told = False
        """Whether the log has told that it is away."""

    def heard(self, error: Exception) -> None:
        """Draw the conclusions from an error of the node, or of a connection to it."""
        self._heard(self.endpoint, error)

    def blocking_client(self) -> Any:
        """Return a client for blocking reads: a single connection, so that CLIENT UNBLOCK can address it."""
        client = unparsed(self._connect(blocking=True).client())
        self._blocking[id(client)] = client
        return client

    def _connect(self, *, blocking: bool = False) -> Any:
        return connect(self._settings, address=self._address, blocking=blocking, generation=self._generation)

    def ask(self, *words: str) -> Any:
        """Send a command over a connection of its own, which waits for no call. Return the reply as Redis sent it."""
        settings = self._settings.model_copy(update={"redis_timeout_s": PATIENCE_S})
        client = connect(settings, address=self._address, generation=self._generation)
        connection: Any = client.connection_pool.make_connection()
        try:
            connection.connect()
            connection.send_command(*words, check_health=False)
            return connection.read_response()
        finally:
            connection.disconnect()

    def send(self, part: Part, commands: Commands, waits: Waits) -> Mapping[int, Any]:
        """Send a part of a batch; return the reply or the error of Redis to each of its commands."""
        wanted: list[int] = []
        durable = waits.durable.intersection(part.places)
        now = time.monotonic()
        wait = self._wait(waits.most_ms, now) if durable else None
        with self.client.pipeline(transaction=False) as pipeline:
            for text in part.load:
                pipeline.execute_command("SCRIPT LOAD", text)
            for at in part.places:
                if at in part.asking:
                    pipeline.execute_command("ASKING")
                wanted.append(len(pipeline.command_stack))
                words, options = commands[at]
                pipeline.execute_command(*words, **options)
            if wait is not None:
                pipeline.execute_command(*wait)
            replies = pipeline.execute(raise_on_error=False)
        if wait is not None:
            waits.confirmed |= dict.fromkeys(durable, self._replicas.confirmed(replies[-1], now))
        return {at: replies[place] for at, place in zip(part.places, wanted, strict=True)}

    def _wait(self, most_ms: int, now: float) -> Wait | None:
        if self._replicas.ask(now):
            try:
                self._replicas.learn(self.client.execute_command(ROLE), now)
            except redis.exceptions.ResponseError as error:  # not permitted, or unknown
                self._replicas.learn(error, now)
        return self._replicas.wait(most_ms, now)

    def unblock(self, reader: int) -> None:
        """End a blocking read, by the id of its connection. Nobody waits for that: the node may hang."""
        self.thread.submit(Work(lambda: self.client.client_unblock(reader), Wakeup()))

    def leave(self) -> None:
        """Close every connection: calls under way fail at once. End the thread."""
        self.thread.end()
        self.client.connection_pool.disconnect(inuse_connections=True)
        for reference in self._blocking.valuerefs():
            client = reference()
            if client is not None and client.connection is not None:
                client.connection.disconnect()
