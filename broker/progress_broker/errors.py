"""The tree of errors. Each leaf has a stable `code`, which is part of the wire contract.

BrokerError
├── NotFound            not-found            there is no operation with this id
├── Gone                gone                 the operation was deleted
├── OperationExists     operation-exists     the id was already used with a different body
├── OperationRunning    operation-running    the operation must end before it can be deleted
├── OperationEnded      operation-ended      the operation has ended and can't change any more
├── Fenced              fenced               a later attempt has taken over the operation
├── Gap                 gap                  Redis lost events that were stored before; `last` is the last it has
├── Conflict            conflict             the operation's status has changed; read it again
├── InvalidInput        invalid              the input is invalid; `field` names the part, if there is one
├── TooLarge            too-large            the input exceeds a size limit
├── Unauthenticated     unauthenticated      the caller's credentials are missing or invalid
├── Forbidden           forbidden            the caller may read the operation, but not do this action
├── TooManyStreams      too-many-streams     the caller has reached its limit of open streams
├── RateLimited         rate-limited         the caller has reached its rate limit
├── AtCapacity          at-capacity          this replica has reached its capacity
├── RequestTimeout      request-timeout      the client sent its request too slowly
├── Draining            draining             this replica is shutting down; another one will answer
├── AuthorizerUnavailable  authorizer-unavailable  the back end that authorizes callers does not answer
├── StorageUnavailable  storage-unavailable  Redis can't be reached or can't answer now
├── StorageFull         storage-full         Redis rejects writes
└── SetupError          setup                this process can't start with this configuration
"""

from typing import ClassVar, NamedTuple


class RejectedEvents(NamedTuple):
    """Which events of a publish a server rejects, by number from 0, and its limits. It takes the others alone."""

    numbers: tuple[int, ...]
    max_event_bytes: int
    max_progress_bytes: int


class BrokerError(Exception):
    """The base class. `detail` says what happened, why, and what to do."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, field: str | None = None, retry_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_s = retry_s
        """In how many seconds to retry, if that is known."""
        self.events: RejectedEvents | None = None
        """The events of a publish that are the reason, if it is some of them."""


class NotFound(BrokerError):
    """There is no operation with this id."""

    code = "not-found"


class Unreadable(NotFound):
    """Another program wrote something else to an operation's key in Redis."""


class Gone(BrokerError):
    """The operation was deleted, and its id can't be used again yet."""

    code = "gone"


class OperationExists(BrokerError):
    """An operation with this id was already created, with a different body."""

    code = "operation-exists"


class OperationRunning(BrokerError):
    """The operation has not ended, so it can't be deleted without force."""

    code = "operation-running"


class OperationEnded(BrokerError):
    """The operation has ended and can't change any more."""

    code = "operation-ended"


class Fenced(BrokerError):
    """A later attempt has taken over the operation; this attempt must stop."""

    code = "fenced"


class Gap(BrokerError):
    """Redis does not have the events that the caller was told are stored, as after a failover. Nothing was stored."""

    code = "gap"
    last = 0
    """The seq of the last event that it has of the caller's producer."""


class Conflict(BrokerError):
    """The operation's status is no longer the one that the caller expected."""

    code = "conflict"


class InvalidInput(BrokerError):
    """The input is invalid. Nothing was stored."""

    code = "invalid"


class TooLarge(BrokerError):
    """The input exceeds a size limit. Nothing was stored."""

    code = "too-large"


class Unauthenticated(BrokerError):
    """The caller's credentials are missing or invalid. Only the log says why: every caller gets the same response."""

    code = "unauthenticated"


class Forbidden(BrokerError):
    """The caller may read the operation, but not do this action."""

    code = "forbidden"


class TooManyStreams(BrokerError):
    """The caller has reached its limit of open streams."""

    code = "too-many-streams"


class RateLimited(BrokerError):
    """The caller has reached its rate limit."""

    code = "rate-limited"


class AtCapacity(BrokerError):
    """This replica has too many streams, or too many new ones per second; the client should retry."""

    code = "at-capacity"


class RequestTimeout(BrokerError):
    """The client sent its request too slowly."""

    code = "request-timeout"


class Draining(BrokerError):
    """This replica is shutting down; the client should retry and will reach another replica."""

    code = "draining"

    def __init__(self, detail: str = "this server is shutting down: retry in a moment") -> None:
        super().__init__(detail)


class AuthorizerUnavailable(BrokerError):
    """The back end that authorizes callers can't be reached, or its response is invalid."""

    code = "authorizer-unavailable"


class StorageUnavailable(BrokerError):
    """Redis can't be reached, or is loading, failing over or read-only. A retry may succeed later."""

    code = "storage-unavailable"


LANE_AWAY = "lane away"
"""The `reason` in the problem of a `LaneAway`."""


class LaneAway(StorageUnavailable):
    """The node of a Cluster that has this key can't be reached now. Other nodes may answer."""


class SlotMoving(StorageUnavailable):
    """The key is just being moved to another node of a Cluster. A retry succeeds when it has moved."""


class StorageReadOnly(StorageUnavailable):
    """The server at Redis' address is a replica, for example after a failover: it rejects writes."""


class StorageUnsuitable(StorageUnavailable):
    """Redis is of the wrong kind, or rejects our password or a command. A retry does not help."""


class ServerUnavailable(StorageUnavailable):
    """The server of PROGRESS_URL can't be reached, or something before it answers in its place. A retry may succeed."""


class StorageFull(BrokerError):
    """Redis is out of memory or disk space and rejects writes."""

    code = "storage-full"


class SetupError(BrokerError):
    """This process can't start with this configuration. The detail is one line for the person who started it."""

    code = "setup"


RETRYABLE = frozenset(
    {"draining", "authorizer-unavailable", "storage-unavailable", "at-capacity", "too-many-streams", "rate-limited"}
)
"""The codes of temporary errors: the same request may succeed later."""


def is_temporary(error: BaseException) -> bool:
    """Return whether the same request may succeed later: also after an error that a server did not expect."""
    if not isinstance(error, BrokerError):
        return False
    return error.code in RETRYABLE or isinstance(error, RequestTimeout) or type(error) is BrokerError


def rejection(code: str, detail: str) -> BrokerError:
    """Return the error for the code and detail with which a script rejected a call."""
    return _BY_CODE[code](detail)


_BY_CODE: dict[str, type[BrokerError]] = {error.code: error for error in BrokerError.__subclasses__()}


class Ended(Exception):
    """The client's position is that of the operation's `end`: no event will follow.

    This is not a failure, so it has no code. A client that resumes from such a position learns that it has everything.
    """
