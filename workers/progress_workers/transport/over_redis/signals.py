"""Reads signals: one blocking XREAD over the signal streams of all operations that are on one server."""

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis.exceptions

from progress_broker.errors import BrokerError, StorageUnavailable, Unreadable
from progress_broker.nodes.pool_settings import BLOCK_MS
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.foreign import warn_once
from progress_broker.workers.signals import COUNT, ArrivedSignal, SignalPosition, read_signal
from progress_workers.transport.carrier import Rewound
from progress_workers.transport.over_redis.connection import Connection

logger = logging.getLogger(__name__)


class SignalStreams:
    """Signal streams that one command can name. One thread reads them; any thread may end its wait."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client: Any = None
        self._client_id: int | None = None
        self._key = ""  # one that the client's server has
        self._told: dict[str, deque[SignalPosition]] = {}
        """The positions of the last signals that were read of each operation."""
        self._checked = True  # the first connection has nothing to compare with

    def read(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal | Rewound]:
        """Return the signals after these positions. Wait at most `BLOCK_MS` for the first."""
        try:
            return self._read(positions)
        except (Unreadable, redis.exceptions.ResponseError) as error:
            self._remove_foreign(positions)
            raise StorageUnavailable(f"signals could not be read because of an error of Redis: {error}") from None

    def _read(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal | Rewound]:
        try:
            with storage_errors():
                streams = {self._connection.keys(operation).signals: operation for operation in positions}
                client = self._client or self._connect(next(iter(streams)))
                if not self._checked:
                    rewound = self._find_rewound(client.connection, streams, positions)
                    self._checked = True
                    if rewound:
                        return rewound
                after = [f"{ms}-{seq}" for ms, seq in positions.values()]
                read = ("XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", *streams, *after)
                reply = client.execute_command(*read)
        except BaseException:
            self._client, self._client_id, self._checked = None, None, False
            raise
        signals = [read_signal(streams[key.decode()], entry) for key, entries in reply or () for entry in entries]
        for signal in signals:
            self._told.setdefault(signal.operation, deque(maxlen=COUNT)).append(signal.position)
        return list(signals)

    def _find_rewound(
        self, connection: Any, streams: Mapping[str, str], positions: Mapping[str, SignalPosition]
    ) -> list[ArrivedSignal | Rewound]:
        """Return the operations whose signals end before what was read of them: Redis has lost some.

        The clock of a promoted server may be behind, and what it adds then is before what was read, too.
        """
        self._told = {operation: told for operation, told in self._told.items() if operation in positions}
        ends = dict(zip(streams, _last(connection, list(streams), 1), strict=True))
        shorter = [key for key, end in ends.items() if max(end, default=(0, 0)) < positions[streams[key]]]
        found: list[ArrivedSignal | Rewound] = []
        for key, there in zip(shorter, _last(connection, shorter, COUNT) if shorter else (), strict=True):
            told = self._told.get(streams[key], ())
            found.append(Rewound(streams[key], max((each for each in there if each in told), default=(0, 0))))
        return found

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
            self._connection.unblock(self._key, reader)
        return True

    def disconnect(self) -> None:
        """Close the connection; the next read makes another."""
        client, self._client, self._client_id = self._client, None, None
        if client is not None:
            client.close()

    def _remove_foreign(self, operations: Iterable[str]) -> None:
        """Delete a key that another program wrote where signals belong: one such key makes every read fail."""
        with suppress(BrokerError, redis.exceptions.RedisError), storage_errors():
            client = self._connection.client()
            for key in [self._connection.keys(operation).signals for operation in operations]:
                if client.type(key) not in (b"stream", b"none"):
                    warn_once(key, "another program wrote a value that is not a signal stream; the key is deleted")
                    client.delete(key)


def _last(connection: Any, keys: Sequence[str], count: int) -> list[list[SignalPosition]]:
    """Return the positions of the last entries of streams, the last one first."""
    reads = [("XREVRANGE", key, "+", "-", "COUNT", count) for key in keys]
    connection.send_packed_command(connection.pack_commands(reads))
    return [[_position(entry[0]) for entry in connection.read_response()] for _ in reads]


def _position(text: bytes) -> SignalPosition:
    ms, _, seq = text.decode().partition("-")
    return int(ms), int(seq)
