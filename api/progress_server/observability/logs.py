"""What the log must not show, and how much it says of callers who proved nothing."""

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
    """Return a text with each secret's value replaced."""
    return _PARAMETER.sub(_redacted, text) if "=" in text else text


def _redacted(parameter: re.Match[str]) -> str:
    name = parameter[1]
    return f"{name}=***" if unquote(name).lower() in _SECRETS else parameter[0]


class Redaction(logging.Filter):
    """Lets every record pass, redacted; its arguments keep their places, which formatters such as uvicorn's rely on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record's texts."""
        if isinstance(record.msg, str):
            record.msg = redacted(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(redacted(it) if isinstance(it, str) else it for it in record.args)
        return True


REDACTION = Redaction()


def redact_requests() -> None:
    """Redact what uvicorn logs of requests, whoever runs it; as often as called, it is done once."""
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(REDACTION)


log = logging.getLogger(__name__)

LINES_A_SECOND = 20
"""Strangers must not be able to fill a disk."""


class RefusedLog:
    """Writes so many lines a second; the first of the next second tells how many more there would have been."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second, self._seen = 0, 0

    def note(self, scope: Scope, error: Unauthenticated) -> None:
        """Note that a call is refused. Why would help who guesses: it is told to the operator alone."""
        second = int(self._clock())
        if second != self._second:
            if self._seen > LINES_A_SECOND:
                log.info("%d more calls were refused within a second", self._seen - LINES_A_SECOND)
            self._second, self._seen = second, 0
        self._seen += 1
        if self._seen <= LINES_A_SECOND:
            log.info("a call of %r is refused: %s", scope["path"], error.detail, extra={"path": scope["path"]})
