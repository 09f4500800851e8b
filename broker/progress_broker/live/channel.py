"""A channel: what a replica holds of one watched operation - its recent frames without a hole, and who watches it."""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from progress_broker.live.fanout import Live
from progress_broker.live.ring import Ring, Room
from progress_broker.model.event import END, Event
from progress_broker.model.operation import Operation
from progress_broker.model.position import START, order
from progress_broker.stream.batching import slices
from progress_broker.stream.frames import Frame, make_frame, snapshot_frame
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import Subscription

log = logging.getLogger(__name__)


class Reads(Protocol):
    """What a channel asks of its hub: reads that are under way once, however many wait for them."""

    def load(self, channel: "Channel") -> None:
        """Read the end of the log, and call `loaded_with`."""

    def page(self, channel: "Channel", position: bytes) -> None:
        """Read the log after a position, and call `page_read`."""

    def snapshot(self, channel: "Channel") -> None:
        """Read the operation, and call `snapshot_read` or `vanished`."""

    def empty(self, channel: "Channel") -> None:
        """Forget the channel: nobody watches any more."""


class Channel:
    """One watched operation."""

    __slots__ = (
        "_ahead",
        "_early",
        "_live",
        "_pages",
        "_reads",
        "_ring",
        "_snapshots",
        "_stale",
        "asked_at",
        "heard_at",
        "loaded",
        "n",
        "name",
        "operation",
        "position",
        "subscriptions",
    )

    def __init__(self, operation: str, reads: Reads, room: Room) -> None:
        self.operation = operation
        self.name = operation.encode()
        self.subscriptions: set[Subscription] = set()
        self.n = 0
        self.position = START.encode()
        self.loaded = False
        self.heard_at = 0.0
        self.asked_at = float("-inf")
        self._live = Live()
        self._ahead: set[Subscription] = set()  # those that know more than we do
        self._reads = reads
        self._ring = Ring(room)  # which ends with the n-th frame
        self._early: deque[Event] = deque(maxlen=room.frames)  # what the feed brought while the log was being read
        self._stale = False
        self._pages: dict[bytes, list[Subscription]] = {}
        self._snapshots: list[tuple[Subscription, str | None]] = []

    # The feed's side

    def accept(self, events: Sequence[Event]) -> None:
        """Take events from the feed: hand on what is next, ignore repeats, read the log again after anything else."""
        if not self.loaded:
            self._early.extend(events)
            return
        burst: list[Frame] = []
        for event in events:
            if event.n == self.n + len(burst) + 1:
                burst.append(make_frame(event))
                if burst[-1].type != END:
                    continue
            self._hand_on(burst)
            burst = []
            if not self._repeats(event):
                self.reload()  # which reads the rest, too: what the feed brought is in the log, or is no more
                return
        self._hand_on(burst)

    def reload(self) -> None:
        """Read the end of the log again: something may have been missed."""
        if self.loaded:
            self.loaded = False
            self._reads.load(self)
        else:
            self._stale = True  # the read under way may be from before what was missed

    def loaded_with(self, tail: Sequence[Event]) -> None:
        """Take the end of the log, oldest first, and then what the feed brought meanwhile."""
        lost = self._contradicts(tail)
        if tail and 0 < self.n == tail[0].n - 1:
            # That can't tell whether it follows what we have. Without its first, subscriptions read on from their own.
            tail = tail[1:] or tail
        for subscription in list(self._live):
            subscription.fall_back()
        self._ring.refill(tail)
        if newest := self._ring.last:
            self.n, self.position = newest.n, newest.position
        elif lost:
            self.n, self.position = 0, START.encode()
        self.loaded = True
        early = tuple(self._early)
        self._early.clear()
        if lost:
            said = {"operation": self.operation, "streams": len(self.subscriptions)}
            log.info(
                "history of operation %s was lost: its %d streams go on from a snapshot", *said.values(), extra=said
            )
        for subscription in tuple(self.subscriptions):
            if lost:
                subscription.reset("lost")
            elif newest:
                subscription.appeared()
            subscription.pump()
        self.accept(early)
        if self._stale:
            self._stale = False
            self.reload()

    def gone(self, deleted_at: bytes | None = None) -> None:
        """Send everybody away but those who await the operation: it is no more, as they learn when they come back.

        Unless it has said something since it was `deleted_at` a position: then it was made anew before the feed told.
        """
        if deleted_at is not None and order(self.position) > order(deleted_at):
            return
        for subscription in tuple(self.subscriptions):
            if subscription.mode is not Mode.AWAITING:
                subscription.close("gone", reconnect=True)

    def close(self, reason: str) -> None:
        """Send everybody away for a passing reason."""
        for subscription in tuple(self.subscriptions):
            subscription.close(reason, reconnect=True)

    def trim(self) -> None:
        """Let go of the oldest frames, as far as there is no room for them, but for the last."""
        self._ring.trim()

    # The subscriptions' side (`subscription.Source`)

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

    def wake(self, subscription: Subscription) -> None:
        """Have a subscription go on when there is another frame."""
        self._ahead.add(subscription)

    def join(self, subscription: Subscription) -> None:
        """Write each new frame to a subscription that stands where we do."""
        self._live.join(subscription)

    def part(self, subscription: Subscription) -> None:
        """Write no more to a subscription."""
        self._live.part(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self.part(subscription)
        self._ahead.discard(subscription)
        self.subscriptions.discard(subscription)
        if not self.subscriptions:
            self._reads.empty(self)

    # Within

    def _hand_on(self, burst: Sequence[Frame]) -> None:
        for frames in slices(burst, self.n):
            began = self.n == 0
            if frames[-1].type == END:
                for subscription in list(self._live):
                    subscription.nudge(last=True)  # while it stands before the end, as this may fill it
            for frame in frames:
                self._ring.append(frame)
            # Those who are live stand where we do, so this comes before a write that may find one full.
            self.n, self.position = frames[-1].n, frames[-1].position
            ending = list(self._live) if frames[-1].type == END else ()  # one whom the end fills is live no more
            self._live.deliver(frames)
            for subscription in ending:
                subscription.ended()
            for subscription in tuple(self.subscriptions) if began else ():
                subscription.appeared()
        if self._ahead:
            ahead, self._ahead = self._ahead, set()
            for subscription in ahead:
                if self._replaced(subscription):
                    subscription.reset("lost")
                subscription.pump()

    def _replaced(self, subscription: Subscription) -> bool:
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
