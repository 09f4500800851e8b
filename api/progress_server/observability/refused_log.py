"""What the log says of callers who proved nothing: why, but of a flood of them only how many."""

import logging
import time
from collections.abc import Callable

from starlette.types import Scope

from progress_broker.errors import Unauthenticated

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
