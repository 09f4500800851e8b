"""Warnings about values that could not be reported as they were given."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

MAX_SUBJECTS = 100
"""Different subjects that one operation warns of."""


class Complaints:
    """What an operation warns of: each subject once, in its own log and in Python's."""

    def __init__(self, operation: str, log: Callable[[str], None]) -> None:
        self._operation, self._log = operation, log
        self._made: set[str] = set()

    def add(self, subject: str, said: str) -> None:
        """Warn, unless the operation has warned of this subject before."""
        if subject in self._made or len(self._made) >= MAX_SUBJECTS:
            return
        self._made.add(subject)
        logger.warning("operation %s: %s", self._operation, said)
        self._log(said)
