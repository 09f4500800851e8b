"""What a replica holds of a watched operation's history, and what is read for those who lack more.

The newest frames are in a ring, without a hole, as many as there is room for. Older ones are read a page at a time, for
all that wait for the same page.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from progress_broker.model.event import Event
from progress_broker.model.operation import Operation
from progress_broker.model.position import START, order
from progress_broker.stream.frames import Frame, make_frame, snapshot_frame
from progress_broker.stream.subscription import Subscription


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


class Reads(Protocol):
    """What a channel asks of its hub: reads that are under way once, however many wait for them."""

    def load(self, channel: Any) -> None:
        """Read the end of the log, and call `loaded_with`."""

    def page(self, channel: Any, position: bytes) -> None:
        """Read the log after a position, and call `page_read`."""

    def snapshot(self, channel: Any) -> None:
        """Read the operation, and call `snapshot_read`."""

    def empty(self, channel: Any) -> None:
        """Forget the channel: nobody watches any more."""


class History:
    """What there is of an operation, up to its n-th event: the part of a channel that subscriptions catch up from."""

    __slots__ = ("_pages", "_reads", "_ring", "_snapshots", "loaded", "n", "name", "operation", "position")

    def __init__(self, operation: str, reads: Reads, room: Room) -> None:
        self.operation = operation
        self.name = operation.encode()
        self.n = 0
        self.position = START.encode()
        self.loaded = False
        self._ring = Ring(room)  # which ends with the n-th frame
        self._reads = reads
        self._pages: dict[bytes, list[Subscription]] = {}
        self._snapshots: list[tuple[Subscription, str | None]] = []

    def trim(self) -> None:
        """Let go of the oldest frames, as far as there is no room for them, but for the last."""
        self._ring.trim()

    def typical_bytes(self) -> int:
        """Return about how large a frame is, or 0 if none is known."""
        return self._ring.typical_bytes()

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th, or None if the ring no longer reaches back to it."""
        return () if n >= self.n else self._ring.after(n)

    def find(self, position: bytes) -> Frame | None:
        """Return the recent frame at a position, if it is at hand."""
        return self._ring.find(position) if self.loaded else None

    def read_page(self, subscription: Subscription) -> None:
        """Let a subscription have the page after its position, with all that wait for the same one."""
        waiting = self._pages.setdefault(subscription.position, [])
        waiting.append(subscription)
        if len(waiting) == 1:
            self._reads.page(self, subscription.position)

    def page_read(self, position: bytes, events: Iterable[Event], reset: str | None) -> None:
        """Hand a page to all that wait for it."""
        frames = [make_frame(event) for event in events]
        for subscription in self._pages.pop(position, ()):
            subscription.take_page(frames, reset)

    def read_snapshot(self, subscription: Subscription, reset: str | None) -> None:
        """Let a subscription have a snapshot, with all that wait for one."""
        self._snapshots.append((subscription, reset))
        if len(self._snapshots) == 1:
            self._reads.snapshot(self)

    def snapshot_read(self, operation: Operation) -> None:
        """Hand a snapshot to all that wait for one."""
        waiting, self._snapshots = self._snapshots, []
        frames = {reset: snapshot_frame(operation, reset) for reset in {reset for _, reset in waiting}}
        for subscription, reset in waiting:
            subscription.take_snapshot(frames[reset], done=operation.done)

    # Whether it still is what storage has

    def _overtook(self, subscription: Subscription) -> bool:
        """Whether one who was told more than we knew was told what storage has lost: its number came again, later."""
        ours = self._ring.at(subscription.n)
        return ours is not None and order(ours.position) > order(subscription.position)

    def _repeats(self, event: Event) -> bool:
        """Whether we have this very event: another one under its number means that the log was rewritten."""
        if event.n > self.n:
            return False
        if ours := self._ring.at(event.n):
            return ours.position == event.position
        oldest = self._ring.first
        return oldest is not None and order(event.position) < order(oldest.position)

    def _contradicts(self, tail: Sequence[Event]) -> bool:
        """Whether the log no longer holds what we have handed on: a failover or a restore lost it."""
        if self.n == 0:
            return False
        if not tail or tail[-1].n < self.n:
            return True
        return any(event.n == self.n and event.position != self.position for event in tail)
