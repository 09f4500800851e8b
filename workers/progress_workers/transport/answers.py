"""What the broker's answers mean for the reporters that they are for."""

import logging
from collections.abc import Callable

from progress_broker.errors import (
    BrokerError,
    Conflict,
    Forbidden,
    Gap,
    InvalidInput,
    NotFound,
    OperationEnded,
    SetupError,
    StorageFull,
    StorageUnavailable,
    TooLarge,
)
from progress_broker.model.publish import Published
from progress_workers.core.outgoing.sent import Refill
from progress_workers.core.reporter import Reporter
from progress_workers.errors import CancelInfo, Cancelled

logger = logging.getLogger(__name__)

AWAY = (StorageUnavailable, StorageFull, SetupError)
"""The errors after which a start is repeated: the broker does not answer, or it does not fit these settings yet."""


def apply_answer(reporter: Reporter, answer: Published | BrokerError, take: Callable[[Published], None]) -> None:
    """Pass the answer to `take`. If it is a rejection, stop reporting the operation."""
    if not isinstance(answer, BrokerError):
        take(answer)
    elif not _mended(reporter, answer):
        give_up(reporter, answer)


def _mended(reporter: Reporter, rejection: BrokerError) -> bool:
    """Return whether the reporter can go on after a rejection, with other calls."""
    match rejection:
        case Gap():
            refill(reporter, rejection)
            return True
        case NotFound():
            return open_again(reporter, rejection)
        case Conflict():
            return reporter.begin_again()
        case TooLarge():
            return reporter.leave_out_metadata()
        case InvalidInput():  # the operation may have been cancelled since it began
            return reporter.outbox.leave_out("status")
    return False


def refill(reporter: Reporter, gap: Gap) -> None:
    """Send again what was stored and is lost, in the thread that sends."""
    log_refill(reporter, reporter.refill(gap.last))


def log_refill(reporter: Reporter, refill: Refill) -> None:
    """Log what was stored and is lost."""
    again, gone = refill
    logger.warning(
        "Redis lost events of operation %s that it had stored, as in a failover: %d are sent again, %d are gone",
        reporter.operation,
        sum(map(len, again)) - (gone > 0),
        gone,
    )


def open_again(reporter: Reporter, rejection: NotFound) -> bool:
    """Open the operation again if Redis has lost it. Return False if it has to be given up."""
    known = reporter.missing is not None
    if not reporter.open_again(rejection):
        return False
    if not known:
        logger.warning(
            "Redis lost operation %s, as in a failover: %s",
            reporter.operation,
            "it is created again"
            if reporter.opening is not None and reporter.opening.new is not None
            else "waiting for the process that created it to create it again",
        )
    return True


def checked_answer(answer: Published | BrokerError) -> Published:
    """Return an answer, or raise the error that it is."""
    if isinstance(answer, BrokerError):
        raise answer
    return answer


def refuse(reporter: Reporter, error: BrokerError | Cancelled) -> None:
    """Take note that an operation can't be opened. Its work has begun, so only a cancel of this very work stops it."""
    opening = reporter.opening
    if isinstance(error, Cancelled):
        reporter.cancellation.request(CancelInfo(error.reason, error.by))
        reporter.discard(told=False)  # it has ended, as it should
    elif opening is not None and opening.new is None and not isinstance(error, Forbidden):  # it was meant to exist
        give_up(reporter, error)
    else:
        logger.warning("the work of operation %s goes on unreported: %s", reporter.operation, error.detail)
        reporter.discard()


def give_up(reporter: Reporter, rejection: BrokerError) -> None:
    """Stop reporting an operation. Log this once, with the number of events that are lost."""
    if reporter.unconfirmed:
        reporter.conclude()  # its end was stored; it has been deleted since
        return
    if reporter.lost is None:
        unsent = reporter.unsent()
        dropped = f"; events that were not stored yet and are lost: {unsent}" if unsent else ""
        # That another process ends what this one has joined is the normal end.
        normal = reporter.joins and not unsent and isinstance(rejection, OperationEnded)
        logger.log(
            logging.DEBUG if normal else logging.WARNING,
            "stopped reporting operation %s, because %s%s; the work itself may continue",
            reporter.operation,
            rejection.detail,
            dropped,
        )
    reporter.lose(rejection)
