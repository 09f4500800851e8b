"""What the log says of feeds that are interrupted: one line, however many readers one server's end interrupts."""

import asyncio
import logging
from collections.abc import Sequence

from progress_broker.storage.lanes import shown

log = logging.getLogger(__name__)

TOGETHER_S = 0.25
"""How long interruptions are collected before they are logged, where several readers share the lanes."""


class FeedLog:
    """The log of a replica's feed readers. What happens to several of them is told `together`."""

    def __init__(self, together: bool = False) -> None:
        self._together = together
        self._interrupted: dict[int, Exception] = {}
        self._reconnected: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def interrupted(self, lanes: Sequence[int], error: Exception) -> None:
        """Tell that a reader has lost its connection."""
        if not self._together:
            log.warning("the connection to the feed is interrupted, reconnecting: %s", error)
            return
        self._interrupted |= dict.fromkeys(lanes, error)
        self._soon()

    def reconnected(self, lanes: Sequence[int], tries: int) -> None:
        """Tell that a reader has a connection, if that took more than one try."""
        if tries and not self._together:
            log.info("reconnected to the feed after %d tries", tries)
        elif tries:
            self._reconnected.update(lanes)
            self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOGETHER_S, self._write)

    def _write(self) -> None:
        self._timer = None
        interrupted, self._interrupted = self._interrupted, {}
        reconnected, self._reconnected = self._reconnected, set()
        if interrupted:
            error = next(iter(interrupted.values()))
            log.warning("the feeds of %s are interrupted, reconnecting: %s", shown(interrupted), error)
        if reconnected:
            log.info("reconnected to the feeds of %s", shown(reconnected))
