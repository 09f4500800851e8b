"""Reads signals: one blocking XREAD over the signal streams of all operations of this process."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import redis.exceptions

from progress_broker.errors import BrokerError, StorageUnavailable, Unreadable
from progress_broker.nodes.pool_settings import BLOCK_MS
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.foreign import warn_once
from progress_broker.workers.signals import COUNT, ArrivedSignal, SignalPosition, read_signal
from progress_workers.transport.over_redis.connection import Connection

logger = logging.getLogger(__name__)


class SignalStreams:
    """The signal streams of this process' operations. One thread reads them; any thread may end its wait."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client: Any = None
        self._client_id: int | None = None
        self._key = ""  # one that the client's server has

    def read(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal]:
        """Return the signals after these positions. Wait at most `BLOCK_MS` for the first."""
        try:
            return self._read(positions)
        except (Unreadable, redis.exceptions.ResponseError) as error:
            self._remove_foreign(positions)
            raise StorageUnavailable(f"signals could not be read because of an error of Redis: {error}") from None

    def _read(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal]:
        try:
            with storage_errors():
                streams = {self._connection.keys(operation).signals: operation for operation in positions}
                client = self._client or self._connect(next(iter(streams)))
                after = [f"{ms}-{seq}" for ms, seq in positions.values()]
                read = ("XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", *streams, *after)
                reply = client.execute_command(*read)
        except BaseException:
            self._client = self._client_id = None
            raise
        return [read_signal(streams[key.decode()], entry) for key, entries in reply or () for entry in entries]

    def _connect(self, key: str) -> Any:
        self._client, self._key = self._connection.blocking_client(key), key
        with suppress(redis.exceptions.ResponseError):  # not permitted everywhere, and needed only by `end_wait`
            self._client_id = int(self._client.client_id())
        return self._client

    def end_wait(self) -> bool:
        """End the blocking read. Return whether there may be one that goes on."""
        reader = self._client_id
        if reader is None:
            return False
        # Not permitted, or Redis is unavailable: then the read ends by itself within `BLOCK_MS`.
        with suppress(BrokerError, redis.exceptions.ResponseError), storage_errors():
            self._connection.client_of(self._key).client_unblock(reader)
        return True

    def _remove_foreign(self, operations: Iterable[str]) -> None:
        """Delete a key that another program wrote where signals belong: one such key makes every read fail."""
        with suppress(BrokerError, redis.exceptions.RedisError), storage_errors():
            client = self._connection.client()
            for key in [self._connection.keys(operation).signals for operation in operations]:
                if client.type(key) not in (b"stream", b"none"):
                    warn_once(key, "another program wrote a value that is not a signal stream; the key is deleted")
                    client.delete(key)
