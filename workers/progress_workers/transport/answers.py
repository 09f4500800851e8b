"""What the broker's answers mean for the reporters that they are for."""

import logging
from collections.abc import Callable

from progress_broker.errors import (
    BrokerError,
    Conflict,
    Forbidden,
    Gap,
    OperationEnded,
    SetupError,
    StorageFull,
    StorageUnavailable,
    TooLarge,
)
from progress_broker.model.publish import Published
from progress_workers.core.reporter import Reporter
from progress_workers.errors import CancelInfo, Cancelled

logger = logging.getLogger(__name__)

AWAY = (StorageUnavailable, StorageFull, SetupError)
"""The errors after which a start is repeated: the broker does not answer, or it does not fit these settings yet."""


def apply_answer(reporter: Reporter, answer: Published | BrokerError, take: Callable[[Published], None]) -> None:
    """Pass the answer to `take`. If it is a rejection, stop reporting the operation."""
    if not isinstance(answer, BrokerError):
        take(answer)
    elif isinstance(answer, Gap):
        refill(reporter, answer)
    elif isinstance(answer, Conflict) and reporter.begin_again():
        pass
    elif not isinstance(answer, TooLarge) or not reporter.leave_out_metadata():
        give_up(reporter, answer)


def refill(reporter: Reporter, gap: Gap) -> None:
    """Send again what was stored and is lost, in the thread that sends."""
    again, gone = reporter.refill(gap.last)
    logger.warning(
        "Redis lost events of operation %s that it had stored, as in a failover: %d are sent again, %d are gone",
        reporter.operation,
        sum(map(len, again)) - (gone > 0),
        gone,
    )


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
