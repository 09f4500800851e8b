"""A bridge from `logging`: what the code logs anyway becomes lines of its operation's log."""

import logging
import sys

from progress_workers.base import Reporting
from progress_workers.core.backlog import numbered_level
from progress_workers.current import current
from progress_workers.values import MAX_CHARS, attempt

_OURS = ("progress_workers", "progress_broker")
_CUT = "\n[…]\n"


class LogHandler(logging.Handler):
    """Sends records to an operation's log: to the one given, else to the one in whose block they are logged.

    Outside an operation it does nothing. Levels of one's own count as the next lower of the usual five. A message too
    long for a line (4,096 characters) is cut in its middle, as what matters of a traceback is its end. What this
    package and redis-py log themselves is left out, as sending it would bring forth more. Where to put it:

        logging.getLogger().addHandler(LogHandler(logging.INFO))

    In `logging.config.dictConfig` it is `{"class": "progress_workers.LogHandler", "level": "INFO"}`.
    """

    def __init__(self, level: int | str = logging.NOTSET, operation: Reporting | None = None) -> None:
        super().__init__(level)
        self._operation = operation

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record. Never raises: what can't be formatted goes to `handleError`, as with every handler."""
        attempt(self._send, record, otherwise=lambda _: self._failed(record))

    def _failed(self, record: logging.LogRecord) -> None:
        # `handleError` shows the exception being handled, and raises some of what it meets there itself.
        attempt(self.handleError, record, otherwise=lambda _: None)

    def _send(self, record: logging.LogRecord) -> None:
        operation = current() if self._operation is None else self._operation
        if operation.id and not _circular(record.name):
            operation.log(_fitted(self.format(record)), numbered_level(record.levelno))


def _circular(logger: str) -> bool:
    """Return whether a logger speaks of sending itself. Others may have one named `workers.…`, but no such module."""
    root = logger.partition(".")[0]
    return root == "redis" or logger in _OURS or (root in _OURS and logger in sys.modules)


def _fitted(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    head = MAX_CHARS // 4
    return text[:head] + _CUT + text[head + len(_CUT) - MAX_CHARS :]
