"""A client's own pace: of the `progress` of each interval it gets the newest, and everything else in order."""

from collections.abc import Callable, Sequence
from typing import Protocol

from progress_broker.model.event import PROGRESS
from progress_broker.stream.frames import Frame


class Cancellable(Protocol):
    """A timer that is running."""

    def cancel(self) -> None:
        """Stop it."""


class Pace:
    """Holds back one `progress` at most."""

    __slots__ = ("_call_later", "_clock", "_held", "_interval_s", "_sent_at", "_timer", "_write")

    def __init__(
        self,
        interval_s: float,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        write: Callable[[Sequence[Frame]], None],
    ) -> None:
        self._interval_s, self._clock, self._call_later, self._write = interval_s, clock, call_later, write
        self._held: Frame | None = None
        self._sent_at = float("-inf")
        self._timer: Cancellable | None = None

    def take(self, frames: Sequence[Frame]) -> None:
        """Write what may pass now, and hold what has to wait for its interval."""
        for frame in frames:
            if frame.type == PROGRESS:
                self._hold(frame)
            else:
                self.flush()  # early, so that what follows does not overtake it
                self._write((frame,))

    def flush(self) -> None:
        """Write what is held."""
        frame = self._held
        self.drop()
        if frame is not None:
            self._sent_at = self._clock()
            self._write((frame,))

    def drop(self) -> None:
        """Forget what is held."""
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold(self, frame: Frame) -> None:
        self._held = frame
        wait_s = self._sent_at + self._interval_s - self._clock()
        if wait_s <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = self._call_later(wait_s, self.flush)
