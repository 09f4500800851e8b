"""The way to Redis for this process, and the keys that its users share. Callers name keys, and never a server."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import SecretStr

from progress_broker.errors import BrokerError, StorageUnavailable
from progress_broker.nodes.calls import Call
from progress_broker.nodes.generations import ConnectionGeneration
from progress_broker.nodes.node import connect, master_of, unparsed
from progress_broker.nodes.pool_settings import address_of
from progress_broker.nodes.protocol_check import check_tls, explained, tls_address
from progress_broker.nodes.replicas import Replicas, replicas_of
from progress_broker.nodes.sentinels.threads import ThreadedMaster
from progress_broker.settings import Settings
from progress_broker.storage.keys import Keyspace, OperationKeys, meta_key
from progress_broker.storage.schema import META_FIELDS, is_set_up, meta_call, read_meta
from progress_workers.transport.over_redis.pipeline import errors_that_may_pass, run_durably, run_pipeline

CREATED_MS, ENDED_MS = 1000, 250
"""How long a creation, and an end, waits at most until replicas have it, in milliseconds."""


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

    def client(self) -> Any:
        """Return the client for commands that name a key; raise `StorageUnavailable` while the address is unknown."""
        settings = self.settings if self.settings.redis_url is not None else _locate(self.settings)
        located = self._located
        # The embedded Redis may restart at another address.
        if located is None or located.redis_url != settings.redis_url:
            self._master = master_of(settings, self._generation)
            self._commands = connect(settings, generation=self._generation, master=self._master)
            self._located = settings
            self._replicas = replicas_of(address_of(settings), settings)
        return self._commands

    def client_of(self, key: str) -> Any:
        """Return a client of the server that has a key, for commands that name none."""
        return self.client()

    def blocking_client(self, key: str) -> Any:
        """Return a client for blocking reads of a key: a single connection, so that CLIENT UNBLOCK can address it."""
        settings = self.settings if self.settings.redis_url is not None else _locate(self.settings)
        connection: Any = connect(settings, blocking=True, generation=self._generation, master=self._master)
        return unparsed(connection.client())

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
        return known if is_set_up(known) else self.run(meta_call(self.settings))

    def run(self, call: Call) -> Any:
        """Run one script now and return its reply; raise `StorageUnavailable` or `StorageFull`."""
        (reply,) = self.run_each([call])
        if isinstance(reply, BrokerError):
            raise reply
        return reply

    def run_durable(self, call: Call) -> tuple[Any, bool | None]:
        """Run one script as `run` does, and wait until replicas have what it wrote. Also return whether they do."""
        (reply,), confirmed = self.run_durably([call], CREATED_MS)
        if isinstance(reply, BrokerError):
            raise reply
        return reply, confirmed

    def run_durably(self, calls: Sequence[Call], most_ms: int) -> tuple[list[Any], bool | None]:
        """Run scripts as `run_each` does, and wait until replicas have what they wrote.

        Also return whether they have it; None: there are none.
        """
        client, replicas = self.client(), self._replicas
        return (self.run_each(calls), None) if replicas is None else run_durably(client, calls, replicas, most_ms)

    def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip, as `run_pipeline` does."""
        return run_pipeline(self.client(), calls)

    def _keys(self, operation: str) -> OperationKeys:
        return self.keyspace().operation(operation)


def _locate(settings: Settings) -> Settings:
    from progress_broker.embedded.data_dir import find_address  # imported only if no address is configured

    address = find_address(settings)
    return settings if address is None else settings.model_copy(update={"redis_url": SecretStr(address)})
