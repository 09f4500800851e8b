"""Takes an operation over from its current worker: begins a new attempt, after which the earlier one is rejected."""

from typing import Final

import orjson

from progress_broker.errors import BrokerError, Conflict, StorageUnavailable
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish, WorkerView
from progress_workers.transport.carrier import Carrier

_TRIES: Final = 8


def begin_attempt(carrier: Carrier, operation: str, state: WorkerView, worker: str) -> WorkerView:
    """Begin a new attempt at an operation, unless no worker has started it. Return the operation's new state."""
    if state.status.done or state.status is Status.PENDING:
        return state  # an operation that nobody has started needs no new attempt
    return begin_next_attempt(carrier, operation, state, worker)


def begin_next_attempt(carrier: Carrier, operation: str, state: WorkerView, worker: str) -> WorkerView:
    """Begin the attempt after the present one, unless the operation has ended. Return its new state."""
    for _ in range(_TRIES):
        if state.status.done:
            return state
        attempt = state.attempt + 1
        # A cancel stays in effect, and the new attempt learns of it.
        status = Status.CANCELLING if state.status is Status.CANCELLING else Status.RUNNING
        said = orjson.dumps({"status": status, "attempt": attempt, "worker": worker})
        entries = [NewEvent("status", said, "" if status is Status.CANCELLING else "running")]
        (answer,) = carrier.publish(
            [Publish(operation, entries, attempt, begins=True, worker=worker, expect=state.status)]
        )
        if not isinstance(answer, BrokerError):
            return state._replace(attempt=attempt, status=status, progress={}, counts=None)
        if not isinstance(answer, Conflict):
            raise answer
        state = carrier.view(operation)  # it changed since it was read
    raise StorageUnavailable(
        f"operation {operation} could not be taken over, because other processes keep changing it: try again"
    )
