"""A member of a bundle: an ordinary subscription to one operation, whose outlet hands its frames to the bundle.

What the bundle can't let go of yet waits here: a slice at most. Then the subscription stops, as one does whose client
is full, and goes on from where it stood when that has left.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from progress_broker.live.channel import Channel
from progress_broker.model.event import MISSING, SNAPSHOT
from progress_broker.model.position import order
from progress_broker.stream.batching import conflate
from progress_broker.stream.delivery import Delivery, Terms
from progress_broker.stream.frames import Frame, told_frame
from progress_broker.stream.outlet import UNENCODED
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import CONFLATE_OVER, Subscription

LEAST_SHARE_BYTES = 2_048
"""What each member of a bundle may hold, however many there are."""


class Home(Protocol):
    """What a member tells its bundle."""

    @property
    def full(self) -> bool:
        """Whether the client has no room for more."""

    @property
    def share_bytes(self) -> int:
        """How much each member may hold."""

    def stirred(self, member: "Member") -> None:
        """Note that frames have come, or that it has caught up: its lane may move."""

    def resetting(self, member: "Member", reason: str) -> None:
        """Note that its history can't be replayed: the client is owed a snapshot that says so."""

    def finished(self, member: "Member") -> None:
        """Note that its end has come: it is the last that leaves."""

    def draining(self) -> None:
        """Send the client away: its hub drains."""


class MemberSubscription(Subscription):
    """One that can be told to stop without being slow, and that takes no more at a time than may be held."""

    __slots__ = ("member",)

    def __init__(self, channel: Channel, delivery: Delivery, terms: Terms, member: "Member") -> None:
        super().__init__(channel, delivery, terms)
        self.member = member

    def hold(self) -> None:
        """Stop until `drained`: not the client is slow, but others have to come first."""
        if self.mode is not Mode.CLOSED:
            self._has_room = False
            self.fall_back()

    def reset(self, reason: str | None) -> None:
        """Ask for a snapshot to go on from; the bundle's cursor tells that it is owed until it has left."""
        if reason is not None and self.mode is not Mode.CLOSED:
            self.member.owe_reset(reason)
        super().reset(reason)

    def pump(self) -> None:
        """Catch up as far as there is room, and say so when there is nothing left."""
        super().pump()
        if self.mode is Mode.LIVE:
            self.member.stirred()

    def _take(self, frames: Sequence[Frame]) -> None:
        if self._slow and len(frames) > CONFLATE_OVER:
            every, frames = len(frames), conflate(frames)
            self._terms.tally.conflated += every - len(frames)
        # What is not taken is asked for again, from the ring or by a page: cheaper than to hold it for each member.
        room, some = self.member.home.share_bytes, 0
        while some < len(frames) and room > 0:
            room -= len(frames[some].wire)
            some += 1
        super()._take(frames if some == len(frames) else frames[:some])


class Member:
    """One operation of a bundle, and the outlet of its subscription."""

    __slots__ = (
        "_held_bytes",
        "_reset_at",
        "channel",
        "closed",
        "first",
        "home",
        "lane",
        "operation",
        "pending",
        "reset",
        "subscription",
    )

    kind = "member"
    encoding = UNENCODED

    def __init__(self, operation: str, lane: int, home: Home, first: bytes = b"0-0") -> None:
        self.operation, self.lane, self.home = operation, lane, home
        self.first = first
        """Where its operation begins: an id may come again, once what was deleted is forgotten."""
        self.pending: deque[Frame] = deque()
        self.channel: Channel | None = None
        self.subscription: MemberSubscription | None = None
        self.closed = False
        """Whether nothing more will come."""
        self.reset: str | None = None
        """Why its history could not be replayed, until its client has been told so by a snapshot."""
        self._reset_at: bytes | None = None  # where that snapshot stands, once it is here
        self._held_bytes = 0

    @property
    def current(self) -> bool:
        """Whether all that its lane's feed has brought of it has come here."""
        subscription, channel = self.subscription, self.channel
        return channel is not None and channel.loaded and subscription is not None and subscription.mode is Mode.LIVE

    def follow(self, channel: Channel, delivery: Delivery, terms: Terms) -> MemberSubscription:
        """Subscribe to a channel."""
        self.channel = channel
        self.subscription = MemberSubscription(channel, delivery, terms, self)
        channel.subscriptions.add(self.subscription)
        return self.subscription

    def stirred(self) -> None:
        """Tell the bundle."""
        self.home.stirred(self)

    def tell(self, frame: Frame) -> None:
        """Let a frame of the bundle's own leave after what is pending."""
        self.pending.append(frame)
        self.home.stirred(self)

    def pop(self) -> Frame:
        """Let go of the oldest frame."""
        frame = self.pending.popleft()
        self._held_bytes = self._held_bytes - len(frame.wire) if self.pending else 0
        return frame

    def refill(self) -> None:
        """Go on, if it had to stop."""
        if self.subscription is not None:
            self.subscription.drained()

    def leave(self) -> None:
        """Follow its operation no more."""
        self.pending.clear()
        if self.subscription is not None:
            self.subscription.close("left")

    # Its resets

    def owe_reset(self, reason: str) -> None:
        """Tell the bundle that the client is owed a snapshot with a reset."""
        self.reset, self._reset_at = reason, None
        if reason == "lost":  # what waits here is no more: the snapshot may be older
            self.pending.clear()
            self._held_bytes = 0
        self.home.resetting(self, reason)

    def reset_told_by(self, frame: Frame) -> bool:
        """Whether the reset that was owed has been told when this frame of it has left."""
        if self._reset_at is None or order(frame.position) < order(self._reset_at):
            return False
        self.reset = self._reset_at = None
        return True

    # Its end

    def fail(self, reason: str) -> None:
        """End it because its operation is no more, or can't be read. The client is told once, after what is pending."""
        if not self.closed:  # the feed, and the placer that reads it, may both learn that it was deleted
            self.closed = True
            self.tell(told_frame(MISSING, {"operation": self.operation, "reason": reason}))

    def left(self, reason: str) -> None:
        """End it as its subscription has ended, for this reason."""
        if self.closed or reason == "left":
            return
        if reason == "draining":
            self.home.draining()
        elif reason == "ended":
            self.closed = True
            self.home.finished(self)
        else:
            self.fail("gone" if reason == "gone" else "unreadable")

    # What the subscription calls

    def write(self, frames: Sequence[Frame]) -> None:
        """Hold frames until the bundle lets them go."""
        if not frames[0].position:  # an opening or a farewell: the bundle has its own
            frames = frames[1:]
        if not frames:
            return
        if self.reset is not None and frames[0].type == SNAPSHOT:  # which always comes alone
            self._reset_at = frames[0].position
        self.pending.extend(frames)
        self._held_bytes += sum([len(frame.wire) for frame in frames])
        subscription = self.subscription
        if subscription is not None:
            if self.home.full:
                subscription.filled()
            elif self._held_bytes >= LEAST_SHARE_BYTES and self._held_bytes >= self.home.share_bytes:
                subscription.hold()
        self.home.stirred(self)

    def close(self) -> None:
        """Do nothing: the bundle knows by the subscription's end."""

    def abort(self) -> None:
        """Do nothing, likewise."""
