"""What an error of the server means for a worker: retry later, give one operation up, or mend the settings."""

from collections.abc import Iterator
from contextlib import contextmanager

from progress_broker.errors import (
    BrokerError,
    LaneAway,
    NotFound,
    ServerUnavailable,
    SetupError,
    StorageFull,
    StorageUnavailable,
    TooLarge,
    Unauthenticated,
    is_temporary,
)
from progress_workers.transport.carrier import CallRejected, LaneUnavailable

_LONGEST_RETRY_S = 60.0


@contextmanager
def of_the_start() -> Iterator[None]:
    """Raise the errors of a call before anything is reported. One that the settings cause says what to change."""
    try:
        yield
    except Unauthenticated as error:
        raise SetupError(error.detail) from None
    except LaneAway as error:
        raise CallRejected(error.detail) from None  # it asks for each operation: not as soon as for reports
    except BrokerError as error:
        passes = isinstance(error, TooLarge) or is_temporary(error)  # what the SDK creates is never too large by itself
        raise _as_unavailable(error) if passes and not _is_storage(error) else error from None


@contextmanager
def of_all_reports() -> Iterator[None]:
    """Raise each error of a request for several operations as one that may pass: no operation is given up for it."""
    try:
        yield
    except Unauthenticated as error:
        raise ServerUnavailable(
            f"{error.detail}; if it has expired or was revoked, write a new one to PROGRESS_TOKEN_FILE"
        ) from None
    except TooLarge:  # fewer in one request may fit
        raise
    except BrokerError as error:
        raise error if _is_storage(error) else _as_unavailable(error) from None


def of_one(error: BrokerError, operation: str) -> BrokerError:
    """Return the error with which one publish of several was answered."""
    if isinstance(error, NotFound):
        return NotFound(
            f"there is no operation {operation} any more (it was deleted, it expired, or Redis lost it), or"
            " PROGRESS_TOKEN has no grant to publish to it"
        )
    if isinstance(error, StorageFull) or not is_temporary(error):
        return error
    if isinstance(error, LaneAway):
        return LaneUnavailable(error.detail)
    return CallRejected(error.detail)


def _is_storage(error: BrokerError) -> bool:
    if error.retry_s is not None:
        error.retry_s = min(error.retry_s, _LONGEST_RETRY_S)
    return isinstance(error, StorageUnavailable | StorageFull)


def _as_unavailable(error: BrokerError) -> ServerUnavailable:
    return ServerUnavailable(error.detail, retry_s=error.retry_s)
