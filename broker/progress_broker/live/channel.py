"""A channel: one watched operation. Its events from the feed go to its history and to its live subscriptions."""

import logging
from collections import deque
from collections.abc import Sequence

from progress_broker.live.fanout import Fanout
from progress_broker.live.history import History, Loader, RingLimits
from progress_broker.model.event import END, Event
from progress_broker.model.position import START, order
from progress_broker.stream.batching import slices
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import Subscription

log = logging.getLogger(__name__)
_LOST = "Redis has lost history of operation %s: its streams (%d) continue with a snapshot"


class Channel(History):
    """One watched operation: it passes events from the feed to the subscriptions, and reloads the log after a gap."""

    __slots__ = ("_ahead", "_early_events", "_live", "_stale", "checked_at", "last_event_at", "subscriptions")

    def __init__(self, operation: str, loader: Loader, limits: RingLimits) -> None:
        super().__init__(operation, loader, limits)
        self.subscriptions: set[Subscription] = set()
        self.last_event_at = 0.0
        self.checked_at = float("-inf")
        self._live = Fanout(operation)
        self._ahead: set[Subscription] = set()  # subscriptions that have newer events than this channel
        self._early_events: deque[Event] = deque(
            maxlen=limits.frames
        )  # events from the feed while the log is being read
        self._stale = False

    # What the feed calls

    def accept(self, events: Sequence[Event]) -> None:
        """Receive events from the feed: deliver the next ones, ignore repeats, and reload the log after a gap."""
        if not self.loaded:
            self._early_events.extend(events)
            return
        burst: list[Frame] = []
        for event in events:
            if event.n == self.n + len(burst) + 1:
                burst.append(make_frame(event))
                if burst[-1].type != END:
                    continue
            self._deliver(burst)
            burst = []
            if not self._repeats(event):
                self.reload()  # this reads the other events, too: they are in the log, or they were deleted
                return
        self._deliver(burst)

    def reload(self) -> None:
        """Read the end of the log again, because events may have been missed."""
        if self.loaded:
            self.loaded = False
            self._loader.load(self)
        else:
            self._stale = True  # the result of the read in progress may be older than the missed events
            self._early_events.clear()  # the next read has them, if they still exist

    def loaded_with(self, tail: Sequence[Event]) -> None:
        """Receive the newest events of the log, oldest first, then apply what the feed delivered meanwhile."""
        lost = self._contradicts(tail)
        self._agreed = self._agreed_with(tail) if lost else None
        if tail and 0 < self.n == tail[0].n - 1:
            # The tail starts right after our last event, so it does not contain that event, and it can't be compared.
            # Without the tail's first event, each subscription continues from its own position.
            tail = tail[1:] or tail
        for subscription in list(self._live):
            subscription.fall_back()
        self._ring.refill(tail)
        if newest := self._ring.last:
            self.n, self.position = newest.n, newest.position
        elif lost:
            self.n, self.position = 0, START.encode()
        self.loaded = True
        # Not what is older than the log: it may be of an earlier operation with the same id.
        early = [event for event in self._early_events if order(event.position) > order(self.position)]
        self._early_events.clear()
        if lost:
            fields = {"operation": self.operation, "streams": len(self.subscriptions)}
            log.info(_LOST, *fields.values(), extra=fields)
        for subscription in tuple(self.subscriptions):
            if lost and not self._agrees_with(subscription):
                subscription.reset("lost")
            elif newest:
                subscription.appeared()
            subscription.pump()
        self.accept(early)
        stale, self._stale = self._stale, False
        if stale:
            self.reload()

    def gone(self, deleted_at: bytes | None = None) -> None:
        """Close all subscriptions, because the operation was deleted. Clients learn that when they reconnect.

        Those that wait for its creation stay open, and those that have something after `deleted_at`: it was created
        again before the feed reported the deletion. Without `deleted_at`, those that are starting stay open too: they
        ask Redis themselves, and some of them then wait for the creation.
        """
        if deleted_at is not None and order(self.position) > order(deleted_at):
            return
        stay = (Mode.AWAITING,) if deleted_at else (Mode.AWAITING, Mode.STARTING)
        for subscription in tuple(self.subscriptions):
            if subscription.mode not in stay and not (deleted_at and subscription.is_beyond(deleted_at)):
                subscription.close("gone", reconnect=True)

    def close(self, reason: str) -> None:
        """Close all subscriptions for a temporary reason; clients reconnect."""
        for subscription in tuple(self.subscriptions):
            subscription.close(reason, reconnect=True)

    def add(self, subscription: Subscription) -> None:
        """Add a new subscription. It then says where it begins."""
        self.subscriptions.add(subscription)
        self._joined += 1
        self._filter_for(subscription)

    # What subscriptions call (`frame_source.FrameSource`; a part of it is in `History`)

    def wake(self, subscription: Subscription) -> None:
        """Call `pump` of a subscription when there is a new frame."""
        self._ahead.add(subscription)

    def join(self, subscription: Subscription) -> None:
        """Write each new frame to a subscription from now on. It must have the channel's position."""
        self._live.join(subscription)

    def part(self, subscription: Subscription) -> None:
        """Stop writing to a subscription."""
        self._live.part(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription that has closed."""
        self.part(subscription)
        self._ahead.discard(subscription)
        self.subscriptions.discard(subscription)
        if not self.subscriptions:
            self._loader.empty(self)

    # Internal

    def _deliver(self, burst: Sequence[Frame]) -> None:
        for frames in slices(burst, self.n):
            began = self.n == 0
            if frames[-1].type == END:
                for subscription in list(self._live):
                    subscription.flush_side(last=True)  # before the position is changed: it may fill its buffer
            for frame in frames:
                self._ring.append(frame)
            # A write may fill a live subscription's buffer. It then copies this position, so set the position first.
            self.n, self.position = frames[-1].n, frames[-1].position
            ending = list(self._live) if frames[-1].type == END else ()  # copied: a full buffer ends live mode
            self._live.deliver(frames, self.bookmark_every)
            for subscription in ending:
                subscription.ended()
            if began:
                self._read_length()
                for subscription in tuple(self.subscriptions):
                    subscription.appeared()
        if self._ahead:
            ahead, self._ahead = self._ahead, set()
            for subscription in ahead:
                if self._has_lost_event_of(subscription):
                    subscription.reset("lost")
                subscription.pump()
