"""Everything that can go wrong, as one tree. Each leaf has a stable `code`, which is part of the wire contract.

BrokerError
├── NotFound            not-found            no such operation
├── Gone                gone                 it was deleted
├── OperationExists     operation-exists     created before, with another body
├── OperationRunning    operation-running    it has to end before it can be deleted
├── OperationEnded      operation-ended      nothing changes a terminal operation
├── Fenced              fenced               a later attempt has taken over
├── Conflict            conflict             its status changed meanwhile; look again
├── Invalid             invalid              the input is wrong; `field` names the part, where there is one
├── TooLarge            too-large            the input is over a limit
├── Unauthenticated     unauthenticated      who calls has not proved who they are
├── Forbidden           forbidden            who calls may see it, but may not do that
├── TooManyStreams      too-many-streams     who calls has as many streams open as they may
├── RateLimited         rate-limited         who calls asks for too much at a time
├── AtCapacity          at-capacity          this replica has as much to do as it may
├── RequestTimeout      request-timeout      the request came too slowly
├── Draining            draining             this replica is stopping; another will serve
├── AuthorizerUnavailable  authorizer-unavailable  the back end that decides who may come in does not answer
├── StorageUnavailable  storage-unavailable  Redis can't be reached or can't answer now
├── StorageFull         storage-full         Redis refuses writes
└── SetupError          setup                this process can't start as it is configured
"""

from typing import ClassVar


class BrokerError(Exception):
    """The root. `detail` says what happened, why, and what to do."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, field: str | None = None, retry_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_s = retry_s
        """When it may be worth trying again, where that is known."""


class NotFound(BrokerError):
    """No operation has this id."""

    code = "not-found"


class Unreadable(NotFound):
    """What Redis holds in an operation's place is something else: another program wrote it."""


class Gone(BrokerError):
    """The operation was deleted, and its id is not free yet."""

    code = "gone"


class OperationExists(BrokerError):
    """An operation of this id was created with a different body."""

    code = "operation-exists"


class OperationRunning(BrokerError):
    """The operation has not ended, so it can't be deleted without force."""

    code = "operation-running"


class OperationEnded(BrokerError):
    """The operation is terminal; nothing changes it any more."""

    code = "operation-ended"


class Fenced(BrokerError):
    """A later attempt has taken the operation over; this one must stop."""

    code = "fenced"


class Conflict(BrokerError):
    """The operation's status is no longer what the caller took it for."""

    code = "conflict"


class Invalid(BrokerError):
    """The input is wrong. Nothing was stored."""

    code = "invalid"


class TooLarge(BrokerError):
    """The input is over a limit. Nothing was stored."""

    code = "too-large"


class Unauthenticated(BrokerError):
    """Who calls has not proved who they are. Why is for the log: the answer is the same for all."""

    code = "unauthenticated"


class Forbidden(BrokerError):
    """Who calls may see it, but not do that to it."""

    code = "forbidden"


class TooManyStreams(BrokerError):
    """Who calls has as many streams open as they may have."""

    code = "too-many-streams"


class RateLimited(BrokerError):
    """Who calls asks for too much at a time."""

    code = "rate-limited"


class AtCapacity(BrokerError):
    """This replica has as many streams as it may, or opens too many just now; the client should come back."""

    code = "at-capacity"


class RequestTimeout(BrokerError):
    """The request came too slowly."""

    code = "request-timeout"


class Draining(BrokerError):
    """This replica is stopping; the client should come back, and will reach another."""

    code = "draining"

    def __init__(self, detail: str = "this server is stopping: retry in a moment") -> None:
        super().__init__(detail)


class AuthorizerUnavailable(BrokerError):
    """The back end that decides who may come in can't be asked now, or gave no answer that can be read."""

    code = "authorizer-unavailable"


class StorageUnavailable(BrokerError):
    """Redis can't be reached, or is loading, failing over or read-only. Trying again later may work."""

    code = "storage-unavailable"


class StorageUnsuitable(StorageUnavailable):
    """Redis is of the wrong kind, or refuses our password or a command, which does not pass by itself."""


class StorageFull(BrokerError):
    """Redis is out of memory and refuses writes."""

    code = "storage-full"


class SetupError(BrokerError):
    """This process can't start as it is configured: one clear line for the person who started it."""

    code = "setup"


def refusal(code: str, detail: str) -> BrokerError:
    """Return the error that a script's refusal stands for."""
    return _BY_CODE[code](detail)


_BY_CODE: dict[str, type[BrokerError]] = {error.code: error for error in BrokerError.__subclasses__()}


class Ended(Exception):
    """The position is that of the operation's end: nothing will ever follow.

    It is no failure, so it has no code: a client that comes back with such a position is answered that all is told.
    """
