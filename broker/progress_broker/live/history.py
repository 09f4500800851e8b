"""The history of a watched operation that a replica keeps in memory, and reads of older events.

The newest frames are in a ring without gaps, as many as there is memory for. Older ones are read from Redis in pages.
All subscriptions that wait for the same page share one read.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import orjson

from progress_broker.history.losses import Lost
from progress_broker.model.event import PROGRESS, Event, LastEvent
from progress_broker.model.operation import Operation
from progress_broker.model.position import START, milliseconds, order
from progress_broker.stream.frames import Frame, make_frame, snapshot_frame
from progress_broker.stream.subscription import Subscription


@dataclass(slots=True)
class RingLimits:
    """The current size limits of each channel's ring. All channels share one memory budget."""

    frames: int
    bytes: int


class Ring:
    """Frames with consecutive numbers, oldest first."""

    __slots__ = ("_after", "_frames", "_limits", "bytes")

    def __init__(self, limits: RingLimits) -> None:
        self.bytes = 0
        self._limits = limits
        self._frames: deque[Frame] = deque()
        self._after: tuple[int, Sequence[Frame]] | None = None  # what was last asked: many clients ask for the same

    @property
    def first(self) -> Frame | None:
        """The oldest frame, if there is any."""
        return self._frames[0] if self._frames else None

    @property
    def last(self) -> Frame | None:
        """The newest frame, if there is any."""
        return self._frames[-1] if self._frames else None

    def typical_bytes(self) -> int:
        """Return the average size of a frame, or 0 if there is none."""
        return self.bytes // len(self._frames) if self._frames else 0

    def refill(self, events: Iterable[Event]) -> None:
        """Replace the frames. If another program made a gap in the log, only the events after the gap are kept."""
        self._clear()
        for event in events:
            if self._frames and event.n != self._frames[-1].n + 1:
                self._clear()
            self.append(make_frame(event))

    def append(self, frame: Frame) -> None:
        """Add the next frame."""
        self._frames.append(frame)
        self.bytes += len(frame.wire)
        self.trim()

    def trim(self) -> None:
        """Drop the oldest frames that exceed the limits. The last frame always stays."""
        frames, self._after = self._frames, None
        while len(frames) > self._limits.frames or (self.bytes > self._limits.bytes and len(frames) > 1):
            self.bytes -= len(frames.popleft().wire)

    def at(self, n: int) -> Frame | None:
        """Return the n-th frame, if it is in the ring."""
        index = n - self._frames[0].n if self._frames else -1
        return self._frames[index] if 0 <= index < len(self._frames) else None

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th, or None if the ring does not have all of them."""
        if not self._frames or n + 1 < self._frames[0].n:
            return None
        if self._after is None or self._after[0] != n:
            self._after = n, tuple(islice(self._frames, n + 1 - self._frames[0].n, None))
        return self._after[1]

    def newest(self, type: bytes) -> Frame | None:
        """Return the newest frame of a type, if there is one in the ring."""
        return next((frame for frame in reversed(self._frames) if frame.type == type), None)

    def find(self, position: bytes) -> Frame | None:
        """Return the frame at a position, if it is in the ring."""
        return next((frame for frame in self._frames if frame.position == position), None)

    def _clear(self) -> None:
        self._frames.clear()
        self.bytes, self._after = 0, None


class Loader(Protocol):
    """The reads that a channel requests from its hub. Subscriptions that need the same data share one read."""

    def load(self, channel: Any) -> None:
        """Read the newest events of the log, and how many are kept if a client needs that; then call `loaded_with`."""

    def history_length(self, channel: Any) -> None:
        """Read how many events are kept of the operation, and set `bookmark_every`."""

    def page(self, channel: Any, position: bytes) -> None:
        """Read the log after a position, then call `page_read`."""

    def snapshot(self, channel: Any, lost: Lost | None) -> None:
        """Read the last event that the log shares with whoever has lost a position, if any has, and the operation's
        snapshot; then call `snapshot_read`."""

    def empty(self, channel: Any) -> None:
        """Remove the channel, because it has no subscriptions any more."""


class History:
    """An operation's events up to the n-th: the part of a channel from which subscriptions catch up."""

    __slots__ = (
        "_agreed",
        "_joined",
        "_loader",
        "_pages",
        "_ring",
        "_snapshots",
        "bookmark_every",
        "is_filtered",
        "loaded",
        "n",
        "name",
        "operation",
        "position",
    )

    def __init__(self, operation: str, loader: Loader, limits: RingLimits) -> None:
        self.operation = operation
        self.name = operation.encode()
        self.n = 0
        self.position = START.encode()
        self.loaded = False
        self.bookmark_every = 1  # until it is known how many events are kept
        self.is_filtered = False
        """Whether a client wants only some types. Nobody else needs to know how many events are kept."""
        self._ring = Ring(limits)  # it ends with the n-th frame
        self._loader = loader
        self._joined = 0  # how many subscriptions it ever had
        self._pages: dict[bytes, list[Subscription]] = {}
        self._snapshots: dict[Lost | None, list[tuple[Subscription, str | None]]] = {}
        self._agreed: bytes | None = None  # after a loss: up to there, the log has what was delivered

    @property
    def standing(self) -> tuple[int, bytes, int]:
        """What makes an answer outdated that the operation does not exist: new events, and subscriptions that found it
        after that was asked."""
        return self.n, self.position, self._joined

    @property
    def percent(self) -> float | None:
        """The last percentage of the operation that is in memory, for log lines."""
        frame = self._ring.newest(PROGRESS)
        data = None if frame is None else orjson.loads(frame.envelope)["data"]
        percent = data.get("percent") if isinstance(data, dict) else None
        return percent if isinstance(percent, int | float) else None

    def trim(self) -> None:
        """Drop the oldest frames that exceed the limits. The last frame always stays."""
        self._ring.trim()

    def typical_bytes(self) -> int:
        """Return the average size of a frame, or 0 if there is none."""
        return self._ring.typical_bytes()

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th, or None if the ring no longer has all of them."""
        return () if n >= self.n else self._ring.after(n)

    def find(self, position: bytes) -> Frame | None:
        """Return the frame at a position, if it is in memory."""
        return self._ring.find(position) if self.loaded else None

    def read_page(self, subscription: Subscription) -> None:
        """Request the page after a subscription's position. Subscriptions at the same position share it."""
        waiting = self._pages.setdefault(subscription.position, [])
        waiting.append(subscription)
        if len(waiting) == 1:
            self._loader.page(self, subscription.position)

    def page_read(self, position: bytes, events: Iterable[Event], reset: str | None) -> None:
        """Pass a page to all subscriptions that wait for it."""
        frames = [make_frame(event) for event in events]
        for subscription in self._pages.pop(position, ()):
            subscription.take_page(frames, reset)

    def read_snapshot(self, subscription: Subscription, reset: str | None) -> None:
        """Request a snapshot for a subscription. Subscriptions that have lost the same history share it, and all
        others."""
        lost = self._lost(subscription) if reset == "lost" else None
        waiting = self._snapshots.setdefault(lost, [])
        waiting.append((subscription, reset))
        if len(waiting) == 1:
            self._loader.snapshot(self, lost)

    def _lost(self, subscription: Subscription) -> Lost:
        if subscription.restarted_at is not None:
            return Lost(subscription.restarted_at, certain=True)
        told = subscription.told_position
        if self._agreed is None:
            return Lost(told, of_lane=subscription.of_lane)
        return Lost(min(told, self._agreed, key=order), certain=True)

    def snapshot_read(self, lost: Lost | None, operation: Operation, shared: LastEvent | None) -> None:
        """Pass a snapshot to all subscriptions that wait for it. After a loss it is followed by all events after the
        last one that they share with the log.

        An operation that began after the last event of a subscription is another one, which has the id now. Its client
        may not be allowed to read it, so it has to ask again.
        """
        waiting = self._snapshots.pop(lost)
        frames = {reset: snapshot_frame(operation, reset, shared) for reset in {reset for _, reset in waiting}}
        began_ms = round(operation.created_at.timestamp() * 1000)
        for subscription, reset in waiting:
            if reset is not None and 0 < milliseconds(subscription.position) < began_ms:
                subscription.close("lost", reconnect=True)
            else:
                frame = frames[reset]
                subscription.take_snapshot(frame, done=operation.done and frame.n == operation.events)

    def _filter_for(self, subscription: Subscription) -> None:
        """Find out how many events are kept if a subscription is the first to need that."""
        if subscription.delivery.types is not None and not self.is_filtered:
            self.is_filtered = True
            if self.loaded:
                self._read_length()

    def _read_length(self) -> None:
        if self.is_filtered:
            self._loader.history_length(self)

    # Comparison with what Redis has

    def _has_lost_event_of(self, subscription: Subscription) -> bool:
        """Whether a subscription that was ahead of the channel has an event that Redis has lost.

        Then another event with the same number, but a later position, has come.
        """
        ours = self._ring.at(subscription.n)
        return ours is not None and order(ours.position) > order(subscription.position)

    def _repeats(self, event: Event) -> bool:
        """Whether this event was delivered before. Another event with the same number means a rewritten log."""
        if event.n > self.n:
            return False
        if ours := self._ring.at(event.n):
            return ours.position == event.position
        oldest = self._ring.first
        return oldest is not None and order(event.position) < order(oldest.position)

    def _agrees_with(self, subscription: Subscription) -> bool:
        """Whether a subscription can go on after a loss: its last event is in the ring, or older.

        It is not certain before it has begun. If it is older, a page will show whether the log has it.
        """
        ours, oldest = self._ring.at(subscription.n), self._ring.first
        if not subscription.n or subscription.has_first_frames or oldest is None:
            return False
        return subscription.n < oldest.n if ours is None else ours.position == subscription.position

    def _agreed_with(self, tail: Sequence[Event]) -> bytes | None:
        """Return the last position that both the ring and a log have, if there is any."""
        for event in reversed(tail):
            ours = self._ring.at(event.n)
            if ours is not None and ours.position == event.position:
                return ours.position
        return None

    def _contradicts(self, tail: Sequence[Event]) -> bool:
        """Whether the log no longer has events that were delivered: a failover or a restore has lost them."""
        if self.n == 0:
            return False
        if not tail or tail[-1].n < self.n:
            return True
        return any(event.n == self.n and event.position != self.position for event in tail)
