"""A channel: one watched operation. What the feed brings of it goes to its history, and to those who watch."""

import logging
from collections import deque
from collections.abc import Sequence

from progress_broker.live.fanout import Live
from progress_broker.live.history import History, Reads, Room
from progress_broker.model.event import END, Event
from progress_broker.model.position import START, order
from progress_broker.stream.batching import slices
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import Subscription

log = logging.getLogger(__name__)


class Channel(History):
    """One watched operation."""

    __slots__ = ("_ahead", "_early", "_live", "_stale", "asked_at", "heard_at", "subscriptions")

    def __init__(self, operation: str, reads: Reads, room: Room) -> None:
        super().__init__(operation, reads, room)
        self.subscriptions: set[Subscription] = set()
        self.heard_at = 0.0
        self.asked_at = float("-inf")
        self._live = Live()
        self._ahead: set[Subscription] = set()  # those that know more than we do
        self._early: deque[Event] = deque(maxlen=room.frames)  # what the feed brought while the log was being read
        self._stale = False

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

    # The subscriptions' side (`subscription.Source`), beside what they are given of its history

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
                if self._overtook(subscription):
                    subscription.reset("lost")
                subscription.pump()
