"""A bridge from `logging`: log records become lines of the operation's log."""

import logging
import sys

from progress_workers.base import BaseOperation
from progress_workers.core.outgoing.backlog import numbered_level
from progress_workers.current import current
from progress_workers.values import MAX_CHARS, attempt

_OURS = ("progress_workers", "progress_broker")
_CUT = "\n[…]\n"


class LogHandler(logging.Handler):
    """Sends records to an operation's log: to the given operation, or to the one in whose block the record was logged.

    Outside an operation it does nothing. A custom level counts as the next lower one of the five standard levels. If a
    message is longer than a line may be (4,096 characters), its middle is cut, because the end of a traceback matters
    most. Records of this package and of redis-py are left out, as sending them would create more records. How to
    install it:

        logging.getLogger().addHandler(LogHandler(logging.INFO))

    In `logging.config.dictConfig` it is `{"class": "progress_workers.LogHandler", "level": "INFO"}`.
    """

    def __init__(self, level: int | str = logging.NOTSET, operation: BaseOperation | None = None) -> None:
        super().__init__(level)
        self._operation = operation

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Never raises: if the record can't be formatted, `handleError` is called, as usual."""
        attempt(self._send, record, otherwise=lambda _: self._failed(record))

    def _failed(self, record: logging.LogRecord) -> None:
        # `handleError` prints the current exception, and may itself raise while it does so.
        attempt(self.handleError, record, otherwise=lambda _: None)

    def _send(self, record: logging.LogRecord) -> None:
        operation = current() if self._operation is None else self._operation
        if operation.id and not _circular(record.name):
            operation.log(_fitted(self.format(record)), numbered_level(record.levelno))


def _circular(logger: str) -> bool:
    """Return whether a logger's records are about sending. A user's `workers.…` logger is not one of our modules."""
    root = logger.partition(".")[0]
    return root == "redis" or logger in _OURS or (root in _OURS and logger in sys.modules)


def _fitted(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    head = MAX_CHARS // 4
    return text[:head] + _CUT + text[head + len(_CUT) - MAX_CHARS :]
