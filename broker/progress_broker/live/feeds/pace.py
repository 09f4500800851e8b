"""How long readers wait between two reads: the more of them have news, the longer, as each wake-up costs."""

import math

READ_EVERY_S = 0.002
"""The minimum time from a reply to the next read. A wake-up costs as much as the delivery of ten events or more, so
under load each read should return many events. At a steady 10,000 events/s this saves a third of the cost per event. An
event after a pause is not delayed, because by then a read is waiting for it."""

SLOWEST_S = 0.016
"""The longest such time, however many readers have news."""

RECENT_S = 0.05
"""How long a reader that had news counts."""


class Pace:
    """The pace of a reader, which it shares with others."""

    def __init__(self, shared: "list[Pace] | None" = None) -> None:
        self._readers = [] if shared is None else shared
        self._readers.append(self)
        self._news_at = self._read_at = -1.0  # long ago, by a clock that begins at 0

    def read(self, now: float, *, news: bool) -> None:
        """Note that a read has ended, with or without events."""
        self._read_at = now
        if news:
            self._news_at = now

    def early_s(self, now: float) -> float:
        """Return how long the reader has to wait before its next read."""
        if len(self._readers) == 1:
            return self._read_at + READ_EVERY_S - now
        since = now - RECENT_S
        busy = sum([reader._news_at > since for reader in self._readers])
        every_s = min(SLOWEST_S, READ_EVERY_S * max(1, busy))
        # All of them at the same time, so that one wake-up is for many. A timer may be a little early.
        return every_s * math.ceil((self._read_at + every_s / 4) / every_s) - now
