"""Carries reports to Redis and signals back, without a server in between."""

from collections.abc import Mapping, Sequence
from typing import Any

from progress_broker.errors import BrokerError
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Publish, Published
from progress_broker.operations import parent_notice
from progress_broker.operations.commands import check_rejection, create_call, read_published, worker_publish_call
from progress_broker.operations.worker_view import (
    END_FIELDS,
    FIELDS,
    WorkerView,
    read_cancelled_at_s,
    read_worker_view,
)
from progress_broker.storage.redis_errors import storage_errors
from progress_workers.transport.carrier import ArrivedSignal, CreatedReply, SignalPosition
from progress_workers.transport.over_redis.connection import Connection
from progress_workers.transport.over_redis.parent import notify_parent
from progress_workers.transport.over_redis.pipeline import errors_that_may_pass, run_pipeline
from progress_workers.transport.over_redis.signals import SignalStreams


class RedisCarrier:
    """A `Carrier` over one Redis."""

    peer = "Redis"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._signals = SignalStreams(connection)

    def publish(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Run the publish script for each, in one round trip."""
        keys = self._connection.keys
        calls = [worker_publish_call(publish, keys(publish.operation)) for publish in publishes]
        return [_answer(reply) for reply in run_pipeline(self._connection.client(), calls)]

    def create(self, operation: str, new: NewOperation, traceparent: str) -> CreatedReply:
        """Create an operation, unless it exists with the same values, and notify its parent."""
        connection = self._connection
        reply = connection.run(
            create_call(operation, connection.keys(operation), new, connection.settings, traceparent)
        )
        check_rejection(reply)
        cancel = notify_parent(connection, operation, new) if parent_notice.is_due(new, reply) else None
        idle_timeout_s = int(reply[6]) / 1000 if len(reply) > 6 and reply[6] else None
        return CreatedReply(bool(reply[4]), int(reply[5]) if reply[5] else None, idle_timeout_s, cancel)

    def view(self, operation: str) -> WorkerView:
        """Return an operation's state; raise `NotFound` or `Gone`."""
        key = self._connection.keys(operation).snapshot
        with errors_that_may_pass():
            values = self._connection.client().hmget(key, FIELDS)
        return read_worker_view(operation, values)

    def cancelled_at_s(self, operation: str) -> float | None:
        """Return when an operation was cancelled, in seconds since 1970; None if it was not, or does not exist."""
        with storage_errors():
            key = self._connection.keys(operation).snapshot
            values = self._connection.client().hmget(key, END_FIELDS)
        return read_cancelled_at_s(values)

    def signals(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal]:
        """Return the signals after these positions. Wait at most `BLOCK_MS` for the first."""
        return self._signals.read(positions)

    def end_wait(self) -> bool:
        """End the blocking read of signals."""
        return self._signals.end_wait()

    def after_fork(self) -> None:
        """Restart in a forked child: the connections belong to the parent."""
        self._connection.after_fork()
        self._signals = SignalStreams(self._connection)


def _answer(reply: Any) -> Published | BrokerError:
    if isinstance(reply, BrokerError):
        return reply
    try:
        return read_published(reply)
    except BrokerError as rejection:
        return rejection
