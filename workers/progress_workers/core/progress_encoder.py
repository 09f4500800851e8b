"""How progress is told: within the limits, whatever is wrong with it, and again as its rate falls."""

import logging
from math import inf
from typing import Any

from progress_broker.model.entry import Entry
from progress_broker.settings import Settings
from progress_workers.core.backlog import Line
from progress_workers.core.encoding import log_json, progress_json, room
from progress_workers.core.progress.progress import Progress

logger = logging.getLogger(__name__)

FADING_S = 5.0
"""How soon the progress of work that stands still is told again, as its rate falls; then in twice the time."""


class Telling:
    """One operation's progress as entries. Times are monotonic, in seconds."""

    def __init__(self, operation: str, progress: Progress, settings: Settings, now: float) -> None:
        self._operation = operation
        self._progress = progress
        self._settings = settings
        self._told_at, self._fading_s = now, inf
        self._complained = False

    def due_at(self) -> float:
        """Return when to tell it again though nothing is done; infinity for never."""
        return self._told_at + self._fading_s

    def stop(self) -> None:
        """Tell it no more unless something changes."""
        self._fading_s = inf

    def describe(self, now: float) -> dict[str, Any] | None:
        """Return what there is to tell; None if it can't be told."""
        try:
            return self._progress.describe(now)
        except Exception:  # odd values must neither hold back the logs nor the end
            if not self._complained:
                self._complained = True
                logger.exception("the progress of operation %s can't be told", self._operation)
            return None

    def entries(self, progress: dict[str, Any], now: float, *, changed: bool) -> list[Entry]:
        """Return the progress and, the first time something does not fit into it, a line that says so."""
        data, left_out = progress_json(progress, self._settings.max_progress_bytes)
        entries = [Entry("progress", data)]
        if left_out and not self._complained:
            self._complained = True
            said = f"left out of the progress, as too large: {', '.join(left_out)}"
            logger.warning("operation %s: %s", self._operation, said)
            entries.insert(0, Entry("log", log_json(Line(said, "warning", None), room(self._settings))))
        self._fade(progress, now, changed)
        return entries

    def _fade(self, progress: dict[str, Any], now: float, changed: bool) -> None:
        """Decide when to tell it again though nothing is done: a rate and a remaining time would stand as they were."""
        self._told_at = now
        moves = progress.get("rate") or progress.get("eta_ms")
        self._fading_s = inf if not moves else FADING_S if changed else 2 * self._fading_s
