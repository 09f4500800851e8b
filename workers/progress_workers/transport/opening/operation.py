"""Opens an operation: creates or finds it, and begins a new attempt if wanted. This is safe to repeat."""

from progress_broker.errors import BrokerError, Fenced, NotFound, OperationEnded, OperationExists
from progress_broker.model.operation import Status
from progress_broker.model.publish import Published, WorkerView
from progress_workers.core.opening import Opening
from progress_workers.core.reporter import Reporter
from progress_workers.errors import Cancelled
from progress_workers.transport.answers import AWAY
from progress_workers.transport.carrier import Carrier
from progress_workers.transport.opening.takeover import begin_attempt, begin_next_attempt


def open_operation(carrier: Carrier, opening: Opening) -> WorkerView:
    """Open an operation and return its state.

    Raises `OperationExists`, `OperationEnded`, `NotFound`, `Gone`, or `Cancelled` if its work is no longer wanted; and
    what a carrier raises.
    """
    state = _found(carrier, opening)
    if opening.only_creates:
        return state
    if opening.new_attempt:
        state = begin_attempt(carrier, opening.operation, state, opening.worker)
    check_open(carrier, opening, state)
    return state


def open_again(carrier: Carrier, opening: Opening, attempt: int) -> WorkerView:
    """Open an operation that Redis has lost, as the attempt that it was at. Raises what `open_operation` does."""
    state = _found(carrier, opening)
    check_open(carrier, opening, state)
    while state.attempt < attempt:
        state = begin_next_attempt(carrier, opening.operation, state, opening.worker)
        check_open(carrier, opening, state)
    if state.attempt > attempt:
        raise Fenced(f"attempt {state.attempt} of operation {opening.operation} has taken over from attempt {attempt}")
    return state


def check_open(carrier: Carrier, opening: Opening, state: WorkerView) -> None:
    """Raise `OperationEnded` if an operation has ended, or `Cancelled` if a cancel of its work did that."""
    if not state.status.done:
        return
    operation = opening.operation
    if state.status is Status.CANCELLED and opening.cancel_counts_from_s is not None:
        cancelled_at_s = state.cancelled_at_s
        if cancelled_at_s is not None and cancelled_at_s >= opening.cancel_counts_from_s:
            raise Cancelled(operation, "before this run began")
    raise OperationEnded(
        f"operation {operation} is already {state.status}, and an end is final:"
        " to start new work, choose another id, or leave `id` out to get a new one"
    )


def or_cancelled(
    carrier: Carrier, reporter: Reporter, answer: Published | BrokerError
) -> Published | BrokerError | Cancelled:
    """Return the answer to what a reporter sent, or `Cancelled` if a cancel ended its operation before it began.

    If the broker does not say that now, return its error: what was sent has to be sent again.
    """
    if not isinstance(answer, OperationEnded) or not reporter.nothing_stored:
        return answer
    try:
        state = carrier.view(reporter.operation)
    except AWAY as error:
        return error
    except BrokerError:
        return answer
    # It was cancelled after it was opened, most likely together with its parent.
    return Cancelled(reporter.operation) if state.status is Status.CANCELLED else answer


def _found(carrier: Carrier, opening: Opening) -> WorkerView:
    if opening.new is None:
        return carrier.view(opening.operation)
    if not opening.adopts:
        return _created(carrier, opening)
    try:
        return carrier.view(opening.operation)
    except NotFound:
        try:
            return _created(carrier, opening)
        except OperationExists:  # another process created it meanwhile, with other values
            return carrier.view(opening.operation)


def _created(carrier: Carrier, opening: Opening) -> WorkerView:
    operation, new = opening.operation, opening.new
    assert new is not None  # noqa: S101 - the caller checked it
    try:
        reply = carrier.create(operation, new, opening.traceparent)
    except OperationExists as error:
        raise OperationExists(f"{error.detail}: use the same values as before, or choose another id") from None
    if reply.cancel is not None and not opening.only_creates:
        raise Cancelled(operation, reply.cancel.reason, reply.cancel.by)
    if reply.new or opening.only_creates:
        return WorkerView(
            lease_s=new.lease_s,
            created_ms=reply.created_ms,
            idle_timeout_s=reply.idle_timeout_s,
            metadata=new.metadata,
        )
    return carrier.view(operation)
