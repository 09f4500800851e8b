"""A member of a bundle: an ordinary subscription to one operation, whose outlet passes its frames to the bundle.

Frames that the bundle can't send yet wait here, at most one slice of them. Then the subscription stops, as it does when
a client's buffer is full, and continues from its position when the frames have been sent.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from progress_broker.live.channel import Channel
from progress_broker.model.event import MISSING, SNAPSHOT
from progress_broker.model.position import just_before, order
from progress_broker.stream.delivery import Delivery, StreamPolicy
from progress_broker.stream.frames import Frame, control_frame
from progress_broker.stream.outlet import UNENCODED
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import Subscription

LEAST_SHARE_BYTES = 2_048
"""How much each member may buffer at least, however many members there are."""


class MemberHost(Protocol):
    """What a member reports to its bundle."""

    @property
    def full(self) -> bool:
        """Whether the client's buffer is full."""

    @property
    def share_bytes(self) -> int:
        """How many bytes each member may buffer."""

    def told_position(self, member: "BundleMember") -> bytes:
        """Return the position up to which the client has been told all events of a member's lane."""

    def restarted_at(self, member: "BundleMember") -> bytes | None:
        """Return the position from which a member's lane is told all again after a loss, until that was begun."""

    def member_changed(self, member: "BundleMember") -> None:
        """Handle new frames of a member, or that it has caught up: its lane may have frames to send."""

    def member_resetting(self, member: "BundleMember", reason: str) -> None:
        """Handle that a member's history can't be replayed: the client must get a snapshot with the reason."""

    def member_goes_back(self, member: "BundleMember", position: bytes) -> None:
        """Handle that a member's events after a position will be sent again, after a snapshot."""

    def member_finished(self, member: "BundleMember") -> None:
        """Handle a member's end: its last frame is pending or sent."""

    def draining(self) -> None:
        """Disconnect the client, because of a shutdown."""


class MemberSubscription(Subscription):
    """A subscription that its bundle can pause without counting it as slow. It reads only what may be buffered."""

    __slots__ = ("member",)

    of_lane = True

    def __init__(self, channel: Channel, delivery: Delivery, policy: StreamPolicy, member: "BundleMember") -> None:
        super().__init__(channel, delivery, policy)
        self.member = member

    @property
    def told_position(self) -> bytes:
        """The position up to which its client has been told all events: what is pending is not yet told."""
        return min(self.position, self.member.host.told_position(self.member), key=order)

    @property
    def restarted_at(self) -> bytes | None:
        """The position from which its lane is told all again after a loss, until that was begun."""
        return self.member.host.restarted_at(self.member)

    def pause_for_bundle(self) -> None:
        """Pause until `resume_writing`. The client is not slow, but other members' frames must be sent first."""
        if self.mode is not Mode.CLOSED:
            self._has_room = False
            self.fall_back()

    def is_beyond(self, position: bytes) -> bool:
        """Whether it is known to follow what is after a position, if only because its operation began after it."""
        return super().is_beyond(position) or order(self.member.first) > order(position)

    def reset(self, reason: str | None) -> None:
        """Request a snapshot to continue from. The bundle's cursor says that it is due until it has been sent."""
        if reason is not None and self.mode is not Mode.CLOSED:
            self.member.owe_reset(reason)
        super().reset(reason)

    def pump(self) -> None:
        """Send what is missing while there is room, and notify the bundle when nothing is missing."""
        super().pump()
        if self.mode is Mode.LIVE:
            self.member.mark_dirty()

    def _fitting(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        # The other frames are read again later, from the ring or a page. That is cheaper than to buffer them here.
        room, count = self.member.host.share_bytes, 0
        while count < len(frames) and room > 0:
            room -= len(frames[count].wire)
            count += 1
        return frames if count == len(frames) else frames[:count]


class BundleMember:
    """One operation of a bundle, and the outlet of its subscription."""

    __slots__ = (
        "_pending_bytes",
        "_reset_at",
        "channel",
        "closed",
        "first",
        "host",
        "lane",
        "operation",
        "pending",
        "reset",
        "subscription",
    )

    kind = "member"
    client = ""
    encoding = UNENCODED

    def __init__(self, operation: str, lane: int, host: MemberHost, first: bytes = b"0-0") -> None:
        self.operation, self.lane, self.host = operation, lane, host
        self.first = first
        """The position of its operation's start. It tells apart operations that had the same id one after the other."""
        self.pending: deque[Frame] = deque()
        self.channel: Channel | None = None
        self.subscription: MemberSubscription | None = None
        self.closed = False
        """Whether no more frames will come."""
        self.reset: str | None = None
        """Why its history could not be replayed, until the client has received a snapshot with that reason."""
        self._reset_at: bytes | None = None  # the position of that snapshot, once it is pending
        self._pending_bytes = 0

    @property
    def current(self) -> bool:
        """Whether it has received everything that its lane's feed has delivered."""
        subscription, channel = self.subscription, self.channel
        return channel is not None and channel.loaded and subscription is not None and subscription.mode is Mode.LIVE

    @property
    def has_events_to_come(self) -> bool:
        """Whether the client will get events of it, and not only that it is missing."""
        return not self.closed or any(frame.type != MISSING for frame in self.pending)

    def follow(self, channel: Channel, delivery: Delivery, policy: StreamPolicy) -> MemberSubscription:
        """Subscribe to a channel."""
        self.channel = channel
        self.subscription = MemberSubscription(channel, delivery, policy, self)
        channel.add(self.subscription)
        return self.subscription

    def mark_dirty(self) -> None:
        """Notify the bundle."""
        self.host.member_changed(self)

    def send_first(self, frames: Iterable[Frame]) -> None:
        """Send what was pending of an earlier operation with the same id.

        A snapshot of this operation may be among it. It is left out: the client then gets `missing`, and forgets it.
        """
        mine = order(self.first)
        self.pending.extend(frame for frame in frames if not frame.position or order(frame.position) < mine)

    def send_control(self, frame: Frame) -> None:
        """Send a control frame after the pending frames."""
        self.pending.append(frame)
        self.host.member_changed(self)

    def pop(self) -> Frame:
        """Remove and return the oldest pending frame."""
        frame = self.pending.popleft()
        self._pending_bytes = self._pending_bytes - len(frame.wire) if self.pending else 0
        return frame

    def refill(self) -> None:
        """Continue, if it was paused. Before it has begun, it may have frames of an earlier operation to send."""
        if self.subscription is not None and self.subscription.outlet is self:
            self.subscription.resume_writing()

    def leave(self) -> None:
        """Stop following its operation."""
        self.pending.clear()
        if self.subscription is not None:
            self.subscription.close("left")

    # Resets

    def owe_reset(self, reason: str) -> None:
        """Notify the bundle that the client must get a snapshot with a reset."""
        self.reset, self._reset_at = reason, None
        if reason == "lost":  # Redis has lost the pending events: the snapshot may be older than they are
            self.pending.clear()
            self._pending_bytes = 0
        self.host.member_resetting(self, reason)

    def reset_sent_with(self, frame: Frame, *, behind: bool) -> bool:
        """Whether the client has received the reset, and all that is due with it, once this frame is sent.

        `behind` says that the frame is older than what has been sent of other members. After a loss, frames that are
        older than these may follow.
        """
        if self._reset_at is None or order(frame.position) < order(self._reset_at):
            return False
        if behind and self.reset == "lost":
            return False
        self.reset = self._reset_at = None
        return True

    def has_sent_reset(self) -> bool:
        """Whether the client has received the reset, and everything there is, once all frames are sent that it gave."""
        if self._reset_at is None or self.pending or not self.current:
            return False
        self.reset = self._reset_at = None
        return True

    # The end

    def fail(self, reason: str) -> None:
        """End it because its operation was deleted or can't be read. The client gets one `missing` event, after the
        pending frames."""
        if not self.closed:  # the feed, and the placer that reads it, may both learn that it was deleted
            self.closed = True
            self.send_control(control_frame(MISSING, {"operation": self.operation, "reason": reason}))

    def left(self, reason: str) -> None:
        """End it, because its subscription has closed for this reason."""
        if self.closed or reason == "left":
            return
        if reason == "draining":
            self.host.draining()
        elif reason == "ended":
            self.closed = True
            self.host.member_finished(self)
        else:
            self.fail("gone" if reason in ("gone", "lost") else "unreadable")

    # What the subscription calls

    def write(self, frames: Sequence[Frame]) -> None:
        """Buffer frames until the bundle sends them."""
        if not frames[0].position:  # opening or closing frames: the bundle sends its own
            frames = frames[1:]
        if not frames:
            return
        if self.reset is not None and frames[0].type == SNAPSHOT:  # a snapshot is always written alone
            self._reset_at = frames[0].position
            if self.reset == "lost":
                self.host.member_goes_back(self, frames[0].position if frames[0].n else just_before(self.first))
        self.pending.extend(frames)
        self._pending_bytes += sum([len(frame.wire) for frame in frames])
        subscription = self.subscription
        if subscription is not None:
            if self.host.full:
                subscription.pause_writing()
            elif self._pending_bytes >= LEAST_SHARE_BYTES and self._pending_bytes >= self.host.share_bytes:
                subscription.pause_for_bundle()
        self.host.member_changed(self)

    def close(self) -> None:
        """Do nothing: the subscription's `on_close` notifies the bundle."""

    def abort(self) -> None:
        """Do nothing, for the same reason."""
