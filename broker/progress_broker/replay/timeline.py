"""When each event of a replay is due. No I/O happens here."""

from math import inf

from progress_broker.model.position import milliseconds


class Timeline:
    """Gives the times of events, in seconds after the start of the replay.

    They all count from the start, so what is late once does not make later events late.
    """

    def __init__(self, speed: float = 1.0, idle_limit_s: float = inf) -> None:
        """`speed` is how many times faster than it was; `inf` is without pauses. Longer pauses than `idle_limit_s`, as
        they were recorded, are cut to that."""
        self._speed, self._limit_ms = speed, idle_limit_s * 1000
        self._last_ms: int | None = None
        self._recorded_ms = 0.0

    def due_s(self, position: bytes) -> float:
        """Return when the event of a position is due. Positions come in the order of their times."""
        ms = milliseconds(position)
        if self._last_ms is not None:
            self._recorded_ms += min(max(0, ms - self._last_ms), self._limit_ms)
        self._last_ms = ms
        return 0.0 if self._speed == inf else self._recorded_ms / 1000 / self._speed
