"""Carries reports to Redis and signals back, without a server in between."""

from collections.abc import Mapping, Sequence
from typing import Any

from progress_broker.errors import BrokerError, NotFound
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Created, Publish, Published
from progress_broker.nodes.replicas import MOST_MS
from progress_broker.operations import parent_notice
from progress_broker.operations.commands import create_call, read_created, read_published, worker_publish_call
from progress_broker.operations.worker_view import (
    FIELDS,
    WorkerView,
    read_worker_view,
)
from progress_broker.workers.signals import ArrivedSignal, SignalPosition
from progress_workers.transport.carrier import Rewound
from progress_workers.transport.over_redis.cluster.lane_signals import SignalWaits
from progress_workers.transport.over_redis.connection import Connection
from progress_workers.transport.over_redis.parent import notify_parent
from progress_workers.transport.over_redis.pipeline import errors_that_may_pass


class RedisCarrier:
    """A `Carrier` over one Redis."""

    peer = "Redis"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._signals = SignalWaits(connection)

    def publish(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Run the publish script for each, in one round trip. If one of them is an end, wait for replicas."""
        keys = self._connection.keys
        calls = [worker_publish_call(publish, keys(publish.operation)) for publish in publishes]
        ends = [at for at, publish in enumerate(publishes) if publish.ends]
        confirmed: Sequence[bool | None] = ()
        if ends:
            replies, confirmed = self._connection.run_durably(calls, ends, MOST_MS)
        else:
            replies = self._connection.run_each(calls)
        answers = [_answer(publish.operation, reply) for publish, reply in zip(publishes, replies, strict=True)]
        for at in ends:
            answer = answers[at]
            if confirmed[at] is not None and isinstance(answer, Published):
                answers[at] = answer._replace(confirmed=confirmed[at])
        return answers

    def create(self, operation: str, new: NewOperation, traceparent: str, *, notify: bool = False) -> Created:
        """Create an operation, unless it exists with the same values, and notify its parent."""
        connection = self._connection
        call = create_call(operation, connection.keys(operation), new, connection.settings, traceparent)
        reply, confirmed = connection.run_durable(call)
        created = read_created(reply)._replace(confirmed=confirmed)
        if parent_notice.is_due(new, created, again=notify):
            created = created._replace(cancel=notify_parent(connection, operation, new))
        return created

    def view(self, operation: str) -> WorkerView:
        """Return an operation's state; raise `NotFound` or `Gone`."""
        key = self._connection.keys(operation).snapshot
        with errors_that_may_pass():
            values = self._connection.client().hmget(key, FIELDS)
        return read_worker_view(operation, values)

    def signals(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal | Rewound]:
        """Return the signals after these positions. Wait at most `BLOCK_MS` for the first."""
        return self._signals.read(positions)

    def end_wait(self) -> bool:
        """End the blocking read of signals."""
        return self._signals.end_wait()

    def rest(self) -> None:
        """Have no lane's thread read signals, as nobody listens."""
        self._signals.rest()

    def after_fork(self) -> None:
        """Restart in a forked child: the connections belong to the parent."""
        self._connection.after_fork()
        self._signals = SignalWaits(self._connection)


def _answer(operation: str, reply: Any) -> Published | BrokerError:
    if isinstance(reply, BrokerError):
        return reply
    try:
        return read_published(reply)
    except NotFound:
        return NotFound(
            f"operation {operation} no longer exists in Redis: it was deleted, it expired,"
            " or a failover or restart lost it. Its stored events are lost too"
        )
    except BrokerError as rejection:
        return rejection
