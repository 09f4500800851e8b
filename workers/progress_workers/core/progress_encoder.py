"""Encodes progress within the limits, handles errors in it, and repeats it while its rate falls."""

import logging
from math import inf
from typing import Any

from progress_broker.model.entry import NewEvent
from progress_broker.settings import Settings
from progress_workers.core.encoding import log_json, progress_json, room
from progress_workers.core.outgoing.backlog import Line
from progress_workers.core.progress.progress import Progress

logger = logging.getLogger(__name__)

FADING_S = 5.0
"""How soon unchanged progress is sent again, because its rate falls; then after twice the time, and so on."""


class ProgressEncoder:
    """Encodes one operation's progress as entries. Times are monotonic, in seconds."""

    def __init__(self, operation: str, progress: Progress, settings: Settings, now: float) -> None:
        self._operation = operation
        self._progress = progress
        self._settings = settings
        self._sent_at, self._fading_s = now, inf
        self._has_warned = False

    def due_at(self) -> float:
        """Return when to send unchanged progress again; infinity for never."""
        return self._sent_at + self._fading_s

    def stop(self) -> None:
        """Send progress only after a change."""
        self._fading_s = inf

    def describe(self, now: float) -> dict[str, Any] | None:
        """Return the progress; None if describing it failed."""
        try:
            return self._progress.describe(now)
        except Exception:  # an unexpected value must not delay the logs or the end
            if not self._has_warned:
                self._has_warned = True
                logger.exception(
                    "an unexpected error occurred while encoding the progress of operation %s, so its progress"
                    " is not sent",
                    self._operation,
                )
            return None

    def entries(self, progress: dict[str, Any], now: float, *, changed: bool) -> list[NewEvent]:
        """Return the progress and, the first time that something does not fit, a log line that reports it."""
        data, left_out = progress_json(progress, self._settings.max_progress_bytes)
        entries = [NewEvent("progress", data, count=self._progress.take_count())]
        if left_out and not self._has_warned:
            self._has_warned = True
            said = (
                f"the progress exceeds PROGRESS_MAX_PROGRESS_BYTES; these fields were left out: {', '.join(left_out)}"
            )
            logger.warning("operation %s: %s", self._operation, said)
            entries.insert(
                0, NewEvent("log", log_json(Line(said, "warning", None), room(self._settings.max_event_bytes)))
            )
        self._fade(progress, now, changed)
        return entries

    def _fade(self, progress: dict[str, Any], now: float, changed: bool) -> None:
        """Decide when to send unchanged progress again, so that clients do not keep an old rate and remaining time."""
        self._sent_at = now
        moves = progress.get("rate") or progress.get("eta_ms")
        self._fading_s = inf if not moves else FADING_S if changed else 2 * self._fading_s
