"""The way to Redis for this process, and the keys that its users share. Callers name keys, and never a server."""

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

from pydantic import SecretStr

from progress_broker.errors import BrokerError, StorageUnavailable
from progress_broker.nodes.calls import Call
from progress_broker.nodes.generations import ConnectionGeneration
from progress_broker.nodes.node import connect, master_of, unparsed
from progress_broker.nodes.pool_settings import address_of
from progress_broker.nodes.protocol_check import check_tls, explained, tls_address
from progress_broker.nodes.replicas import MOST_MS, Replicas, replicas_of
from progress_broker.nodes.sentinels.threads import ThreadedMaster
from progress_broker.routing.slots import slot_of
from progress_broker.settings import Settings
from progress_broker.storage.keys import Keyspace, OperationKeys, meta_key
from progress_broker.storage.schema import META_FIELDS, is_set_up, meta_call, read_meta
from progress_workers.transport.over_redis.cluster.client import ClusterClient
from progress_workers.transport.over_redis.cluster.node_thread import PATIENCE_S
from progress_workers.transport.over_redis.cluster.nodes import RUN_S, ClusterNodes
from progress_workers.transport.over_redis.pipeline import errors_that_may_pass, run_durably, run_on_nodes, run_pipeline


class Connection:
    """One Redis as this process uses it. It connects when it is needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._keyspace: Keyspace | None = None
        self.keys = lru_cache(maxsize=1024)(self._keys)
        """Returns the keys of an operation."""
        self.after_fork()

    def after_fork(self) -> None:
        """Restart in a forked child: the connections belong to the parent."""
        self._located: Settings | None = None
        self._commands: Any = None
        self._generation = ConnectionGeneration()
        self._master: ThreadedMaster | None = None
        self._replicas: Replicas | None = None
        self._nodes: ClusterNodes | None = None

    def client(self) -> Any:
        """Return the client for commands that name a key; raise `StorageUnavailable` while the address is unknown."""
        settings = self.settings if self.settings.redis_url is not None else _locate(self.settings)
        located = self._located
        # The embedded Redis may restart at another address.
        if located is None or located.redis_url != settings.redis_url:
            address = address_of(settings)
            if address.kind == "cluster":
                self._nodes = ClusterNodes(settings, address)
                self._commands = ClusterClient(self._nodes)
            else:
                self._master = master_of(settings, self._generation)
                self._commands = connect(settings, generation=self._generation, master=self._master)
            self._located = settings
            self._replicas = replicas_of(address_of(settings), settings)
            self._generation.remade = self._replicas.forget
        return self._commands

    def blocking_client(self, key: str) -> Any:
        """Return a client for blocking reads of a key: a single connection, so that CLIENT UNBLOCK can address it."""
        self.client()
        if self._nodes is not None:
            return self._nodes.owner(key).blocking_client()
        settings = self.settings if self.settings.redis_url is not None else _locate(self.settings)
        connection: Any = connect(settings, blocking=True, generation=self._generation, master=self._master)
        return unparsed(connection.client())

    def unblock(self, key: str, reader: int) -> None:
        """End a blocking read of a key, by the id of its connection."""
        if self._nodes is None:
            self.client().client_unblock(reader)
        else:
            self._nodes.owner(key).unblock(reader)

    def lanes_of(self, operations: Iterable[str]) -> dict[int, list[str]] | None:
        """Divide operations by the slots of their lanes: one command can name the keys of one. None if of all."""
        self.client()
        if self._nodes is None:
            return None
        lanes: dict[int, list[str]] = {}
        for operation in operations:
            lanes.setdefault(slot_of(self.keys(operation).signals), []).append(operation)
        return lanes

    def keyspace(self) -> Keyspace:
        """Return the keyspace that all programs on this Redis share; raise `SetupError` if our settings differ."""
        if self._keyspace is None:
            client, located = self.client(), self._located or self.settings
            check_tls(tls_address(located))
            try:
                self._keyspace = read_meta(self._meta(client), self.settings)
            except StorageUnavailable as error:
                raise explained(located, error) from None
        return self._keyspace

    def _meta(self, client: Any) -> Any:
        with errors_that_may_pass():
            known = client.hmget(meta_key(self.settings.prefix), META_FIELDS)
        # Write only if nothing is stored yet: so a Redis that rejects writes can still be read.
        if is_set_up(known):
            return known
        masters = 1 if self._nodes is None else len(self._nodes.known.slots.masters)
        return self.run(meta_call(self.settings, masters))

    def run(self, call: Call) -> Any:
        """Run one script now and return its reply; raise `StorageUnavailable` or `StorageFull`."""
        client = self.client()
        if self._nodes is None:
            (reply,) = run_pipeline(client, [call])
        else:
            ((reply,), _) = run_on_nodes(self._nodes, [call], RUN_S)
        if isinstance(reply, BrokerError):
            raise reply
        return reply

    def run_durable(self, call: Call) -> tuple[Any, bool | None]:
        """Run one script as `run` does, and wait until replicas have what it wrote. Also return whether they do."""
        (reply,), (confirmed,) = self.run_durably([call], [0], MOST_MS, RUN_S)
        if isinstance(reply, BrokerError):
            raise reply
        return reply, confirmed

    def run_durably(
        self, calls: Sequence[Call], durable: Collection[int], most_ms: int, patience_s: float = PATIENCE_S
    ) -> tuple[list[Any], Sequence[bool | None]]:
        """Run scripts as `run_each` does, and wait until replicas have what some of them wrote: the `durable` ones.

        Also return for each whether replicas have it; None: there are none, or nobody waited.
        """
        client, replicas = self.client(), self._replicas
        if self._nodes is not None:
            return run_on_nodes(self._nodes, calls, patience_s, durable, most_ms)
        if replicas is None:
            return self.run_each(calls), [None] * len(calls)
        replies, confirmed = run_durably(client, calls, replicas, most_ms)
        return replies, [confirmed if at in durable else None for at in range(len(calls))]

    def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip, as `run_pipeline` does, or in one for each node, as `run_on_nodes` does."""
        client = self.client()
        return run_pipeline(client, calls) if self._nodes is None else run_on_nodes(self._nodes, calls, PATIENCE_S)[0]

    def _keys(self, operation: str) -> OperationKeys:
        return self.keyspace().operation(operation)


def _locate(settings: Settings) -> Settings:
    from progress_broker.embedded.data_dir import find_address  # imported only if no address is configured

    address = find_address(settings)
    return settings if address is None else settings.model_copy(update={"redis_url": SecretStr(address)})
