"""Takes an operation over from its current worker: begins a new attempt, after which the earlier one is rejected."""

import os
import socket
from typing import Final

import orjson

from progress_broker.errors import Conflict, StorageUnavailable
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish
from progress_broker.operations.worker_view import WorkerView
from progress_workers.transport.link import Link
from progress_workers.values import label

_TRIES: Final = 8


def begin_attempt(link: Link, operation: str, state: WorkerView, worker: str | None) -> WorkerView:
    """Begin a new attempt at an operation, unless no worker has started it. Return the operation's new state."""
    for _ in range(_TRIES):
        if state.status.done or state.status is Status.PENDING:
            return state  # an operation that nobody has started needs no new attempt
        attempt, name = state.attempt + 1, worker_name(worker)
        # A cancel stays in effect, and the new attempt learns of it.
        status = Status.CANCELLING if state.status is Status.CANCELLING else Status.RUNNING
        said = orjson.dumps({"status": status, "attempt": attempt, "worker": name})
        entries = [NewEvent("status", said, "" if status is Status.CANCELLING else "running")]
        try:
            link.publish(Publish(operation, entries, attempt, begins=True, worker=name, expect=state.status))
        except Conflict:
            state = link.carrier.view(operation)  # it changed since it was read
        else:
            return state._replace(attempt=attempt, status=status, progress={}, counts=None)
    raise StorageUnavailable(
        f"operation {operation} could not be taken over, because other processes keep changing it: try again"
    )


def worker_name(worker: str | None) -> str:
    """Return the worker's name that people see: the given one, or else `host:pid`."""
    given = "" if worker is None else label(worker)
    return given or label(f"{socket.gethostname()}:{os.getpid()}")
