"""Throttling for one client: per interval it gets only the newest `progress`, and all other events in order."""

from collections.abc import Callable, Sequence
from typing import Protocol

from progress_broker.model.event import PROGRESS
from progress_broker.stream.frames import Frame


class Cancellable(Protocol):
    """A timer that is running."""

    def cancel(self) -> None:
        """Stop it."""


class Throttle:
    """Delays `progress` events. It holds at most one of them."""

    __slots__ = ("_call_later", "_clock", "_interval_s", "_pending", "_sent_at", "_timer", "_write")

    def __init__(
        self,
        interval_s: float,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        write: Callable[[Sequence[Frame]], None],
    ) -> None:
        self._interval_s, self._clock, self._call_later, self._write = interval_s, clock, call_later, write
        self._pending: Frame | None = None
        self._sent_at = float("-inf")
        self._timer: Cancellable | None = None

    def take(self, frames: Sequence[Frame]) -> None:
        """Write what may be sent now, and hold a `progress` until its interval has passed."""
        for frame in frames:
            if frame.type == PROGRESS:
                self._delay(frame)
            else:
                self.flush()  # earlier than the interval, to keep the order of events
                self._write((frame,))

    def flush(self) -> None:
        """Write the held frame, if there is one."""
        frame = self._pending
        self.drop()
        if frame is not None:
            self._sent_at = self._clock()
            self._write((frame,))

    def drop(self) -> None:
        """Discard the held frame."""
        self._pending = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _delay(self, frame: Frame) -> None:
        self._pending = frame
        wait_s = self._sent_at + self._interval_s - self._clock()
        if wait_s <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = self._call_later(wait_s, self.flush)
