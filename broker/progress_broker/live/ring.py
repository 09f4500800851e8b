"""The ring: the newest frames of a watched operation without a hole, as many as there is room for."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from progress_broker.model.event import Event
from progress_broker.stream.frames import Frame, make_frame


@dataclass(slots=True)
class Room:
    """What each channel's ring may hold now. The hub shares out one budget of bytes among its channels."""

    frames: int
    bytes: int


class Ring:
    """Frames whose numbers go up by one, oldest first."""

    __slots__ = ("_frames", "_room", "bytes")

    def __init__(self, room: Room) -> None:
        self.bytes = 0
        self._room = room
        self._frames: deque[Frame] = deque()

    @property
    def first(self) -> Frame | None:
        """The oldest frame, if there is any."""
        return self._frames[0] if self._frames else None

    @property
    def last(self) -> Frame | None:
        """The newest frame, if there is any."""
        return self._frames[-1] if self._frames else None

    def typical_bytes(self) -> int:
        """Return about how large a frame is, or 0 if none is known."""
        return self.bytes // len(self._frames) if self._frames else 0

    def refill(self, events: Iterable[Event]) -> None:
        """Hold these instead. A foreign hand may have made a hole in the log: only what follows it is whole."""
        self._clear()
        for event in events:
            if self._frames and event.n != self._frames[-1].n + 1:
                self._clear()
            self.append(make_frame(event))

    def append(self, frame: Frame) -> None:
        """Hold the next frame, too."""
        self._frames.append(frame)
        self.bytes += len(frame.wire)
        self.trim()

    def trim(self) -> None:
        """Let go of the oldest frames, as far as there is no room for them, but for the last."""
        frames = self._frames
        while len(frames) > self._room.frames or (self.bytes > self._room.bytes and len(frames) > 1):
            self.bytes -= len(frames.popleft().wire)

    def at(self, n: int) -> Frame | None:
        """Return the n-th frame, if it is held."""
        index = n - self._frames[0].n if self._frames else -1
        return self._frames[index] if 0 <= index < len(self._frames) else None

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th, or None if the ring does not reach back to it."""
        if not self._frames or n + 1 < self._frames[0].n:
            return None
        return list(islice(self._frames, n + 1 - self._frames[0].n, None))

    def find(self, position: bytes) -> Frame | None:
        """Return the frame at a position, if it is held."""
        return next((frame for frame in self._frames if frame.position == position), None)

    def _clear(self) -> None:
        self._frames.clear()
        self.bytes = 0
