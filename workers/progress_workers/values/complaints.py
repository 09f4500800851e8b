"""Warnings about values that could not be reported as they are."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

MAX_SUBJECTS = 100
"""Maximum number of different subjects that one operation warns about."""


class Complaints:
    """The warnings of one operation: each subject appears once, in the operation's log and in Python's `logging`."""

    def __init__(self, operation: str, log: Callable[[str], None]) -> None:
        self._operation, self._log = operation, log
        self._made: set[str] = set()

    def add(self, subject: str, warning: str) -> None:
        """Warn, unless the operation has already warned about this subject."""
        if subject in self._made or len(self._made) >= MAX_SUBJECTS:
            return
        self._made.add(subject)
        logger.warning("operation %s: %s", self._operation, warning)
        self._log(warning)
