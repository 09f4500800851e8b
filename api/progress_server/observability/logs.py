"""Log hygiene: redact secrets in log records, and limit the lines about rejected callers."""

import logging
import re
import time
from collections.abc import Callable
from urllib.parse import unquote

from starlette.types import Scope

from progress_broker.errors import Unauthenticated

_SECRETS = frozenset({"ticket", "access_token", "token"})
_PARAMETER = re.compile(r"""([\w%]+)=[^&\s"'#]+""")


def redacted(text: str) -> str:
    """Return a text with the value of each secret query parameter replaced by `***`."""
    return _PARAMETER.sub(_redacted, text) if "=" in text else text


def _redacted(parameter: re.Match[str]) -> str:
    name = parameter[1]
    return f"{name}=***" if unquote(name).lower() in _SECRETS else parameter[0]


class Redaction(logging.Filter):
    """A logging filter that redacts each record and drops none.

    Arguments keep their positions: formatters such as uvicorn's rely on them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the message and the arguments of a record."""
        if isinstance(record.msg, str):
            record.msg = redacted(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(redacted(it) if isinstance(it, str) else it for it in record.args)
        return True


REDACTION = Redaction()


def redact_requests() -> None:
    """Redact what uvicorn logs about requests, however uvicorn was started. Calling it again has no effect."""
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(REDACTION)


log = logging.getLogger(__name__)

LINES_A_SECOND = 20
"""Limit of log lines about rejected callers: unauthenticated clients must not be able to fill the disk."""


class RejectionLog:
    """Logs rejected callers, at most `LINES_A_SECOND` lines per second.

    The first line of the next second reports how many were left out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second, self._seen = 0, 0

    def record(self, scope: Scope, error: Unauthenticated) -> None:
        """Log that a call was rejected, and why.

        Only the log gets the reason: in the response it would help an attacker who guesses credentials.
        """
        second = int(self._clock())
        if second != self._second:
            if self._seen > LINES_A_SECOND:
                log.info("%d more calls were rejected within one second", self._seen - LINES_A_SECOND)
            self._second, self._seen = second, 0
        self._seen += 1
        if self._seen <= LINES_A_SECOND:
            log.info("rejected a call of %r: %s", scope["path"], error.detail, extra={"path": scope["path"]})
