"""A bundle: many operations on one outlet, with one cursor.

Each operation has an ordinary subscription. So snapshots, resets and catching up work as for a single operation. The
frames of all subscriptions are sent lane by lane, in the order of positions (`broker/progress_broker/bundle/lane.py`).
The id of each event is the cursor after it. No I/O happens here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from progress_broker.bundle.lane import Lane
from progress_broker.bundle.member import LEAST_SHARE_BYTES, BundleMember
from progress_broker.bundle.merge import Merge
from progress_broker.bundle.query import OperationQuery
from progress_broker.model.event import BOOKMARK, MISSING, OPERATIONS
from progress_broker.model.index_terms import IndexedOperation
from progress_broker.model.position import order
from progress_broker.stream.batching import SLICE_BYTES
from progress_broker.stream.delivery import Delivery, StreamPolicy
from progress_broker.stream.frames import Frame, control_frame, id_frame
from progress_broker.stream.outlet import NO_OUTLET
from progress_broker.stream.stream import Mode, Stream
from progress_broker.stream.subscription import Subscription
from progress_broker.stream.throttle import Cancellable

HOLD_BYTES = 262_144
"""About how much all members together may buffer. Each gets an equal share, but at least one frame."""

Admit = Callable[[IndexedOperation], bool]
"""Whether the client may read an operation. To a client, an operation that it may not read does not exist."""


def anything(_: IndexedOperation) -> bool:
    """Allow every operation."""
    return True


class BundleHost(Protocol):
    """What a bundle needs from its hub."""

    @property
    def watermarks(self) -> Mapping[int, bytes]:
        """The position up to which each lane's feed has been delivered."""

    def is_up_to_date(self, lane: int, /) -> bool:
        """Whether a lane's feed is read, and all that it brought was delivered."""

    def mark_dirty(self, bundle: "Bundle") -> None:
        """Call `flush` soon, and also when the current batch has been delivered."""

    def place(self, bundle: "Bundle", member: BundleMember, after: bytes | None, reset: str | None = None) -> None:
        """Start a new member's subscription after a position, or with a snapshot."""


class Bundle(Stream):
    """One client's position in many operations' logs, as a `Subscription` is for one operation."""

    def __init__(
        self,
        query: OperationQuery,
        delivery: Delivery,
        policy: StreamPolicy,
        host: BundleHost,
        most: int,
        admit: Admit = anything,
    ) -> None:
        super().__init__(delivery, policy)
        self.query, self.admit = query, admit
        self.merge = Merge(host, delivery.interval_s, policy.clock)
        self.awaited: set[str] = set()
        """Ids of operations that do not exist yet."""
        self.reset: str | None = None
        """Why the stream starts with snapshots, although its client sent a cursor."""
        self.members_delivery = replace(
            delivery, interval_s=0, children=False, holder=None, deadline=inf, first=(), says_live=False
        )
        """The delivery options of its members. The bundle itself applies the minimum interval."""
        self._host = host
        self._most = most
        self._first: list[Frame] = []
        self._flushing = False
        self._live = False  # its client has been told that it has all there was
        self._timer: Cancellable | None = None

    def __len__(self) -> int:
        return self.merge.count

    @property
    def operation(self) -> str:
        """The text that stands for several operations in logs and metrics."""
        return "*"

    @property
    def holder(self) -> Any:
        """The owner of the stream."""
        return self.delivery.holder

    @property
    def full(self) -> bool:
        """Whether its outlet's buffer is full."""
        return self.full_since is not None

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        """The subscriptions of its members."""
        return self.merge.subscriptions()

    @property
    def share_bytes(self) -> int:
        """How many bytes each member may buffer."""
        return max(LEAST_SHARE_BYTES, min(SLICE_BYTES, HOLD_BYTES // max(1, self.merge.count)))

    # Members

    def follow(self, indexed: IndexedOperation, number: int, after: bytes | None, reset: str | None = None) -> None:
        """Add an operation as a member. The client has its events up to `after`, or none if that is None."""
        if self.mode is Mode.CLOSED:
            return
        before = self.merge.lane(number).members.get(indexed.operation)
        if before is not None and not _is_same_operation(before.first, indexed.first):
            before.fail("gone")  # it was deleted, and a new operation has its id
            after, reset = None, None
        if self.merge.follows(indexed, number):
            return
        if self.merge.count >= self._most:
            self.close("too-many-operations", reconnect=True)
            return
        self.awaited.discard(indexed.operation)
        member = BundleMember(indexed.operation, number, self, indexed.first)
        self.merge.add(member, known=after is not None)
        self._host.place(self, member, after, reset)

    def has(self, member: BundleMember) -> bool:
        """Whether a member can still send events."""
        return self.mode is not Mode.CLOSED and not member.closed and self.merge.has(member)

    def appeared(self, indexed: IndexedOperation, number: int) -> None:
        """Follow an operation that was just created, if the client may read it and does not know it yet."""
        if number in self.merge.absent and number not in self.merge.lanes:  # it will be found when its lane begins
            return
        lane = self.merge.lane(number)
        if order(indexed.first) <= order(lane.position) or not self.admit(indexed):
            return
        self.follow(indexed, number, None)

    def missing(self, operation: str, reason: str) -> None:
        """Send a `missing` event: the operation does not exist, or no longer exists."""
        frame = control_frame(MISSING, {"operation": operation, "reason": reason})
        if self.outlet is NO_OUTLET:
            self._first.append(frame)
        else:
            self._write([frame])

    def told_position(self, member: BundleMember) -> bytes:
        """Return the position up to which the client has been told all events of a member's lane."""
        return self.merge.lane(member.lane).cursor_position.position

    def restarted_at(self, member: BundleMember) -> bytes | None:
        """Return the position from which a member's lane is told all again after a loss, until that was begun."""
        return self.merge.lane(member.lane).restarted_at

    def member_changed(self, member: BundleMember) -> None:
        """Mark a member's lane: it may have frames to send."""
        lane = self.merge.lanes[member.lane]
        if lane not in self.merge.dirty:
            self.mark_dirty(lane)

    def member_resetting(self, member: BundleMember, reason: str) -> None:
        """Record that the client must get a reset for a member."""
        self.merge.resetting(member, lost=reason == "lost")

    def member_goes_back(self, member: BundleMember, position: bytes) -> None:
        """Record that the client is told a member's events after a position again."""
        self.merge.goes_back(member, position)

    def member_finished(self, member: BundleMember) -> None:
        """Handle a member's end."""
        if self.mode is not Mode.CLOSED:
            if not member.pending:  # its end has already been sent
                self.merge.drop(member)
            self.member_changed(member)

    def draining(self) -> None:
        """Disconnect the client, because of a shutdown."""
        self.close("draining", reconnect=True)

    def mark_dirty(self, lane: Lane) -> None:
        """Mark a lane: it may have frames to send."""
        self.merge.mark_dirty(lane)
        self._host.mark_dirty(self)

    # Sending

    def feed_advanced(self) -> None:
        """Send the frames that waited for the feed, which has delivered more events."""
        self.merge.mark_waiting_dirty()
        self.flush()

    def flush(self) -> None:
        """Send what can be sent while there is room; close, if nothing can follow."""
        if self._flushing or self.full or self.outlet is NO_OUTLET:
            return
        self._flushing = True
        try:
            for frames in self.merge.slices():
                self._write(frames)
                if self.full:
                    return
        finally:
            self._flushing = False
        if not (self.merge.count or self.query.endless or self.awaited or self.merge.absent):
            self.close("ended")
        elif not (self._live or self.merge.waiting):
            self._live = True
            self._write([id_frame(self.merge.cursor()), control_frame(BOOKMARK, {"live": True})])
        wait_s = self.merge.wait_s()
        if wait_s is not None and self._timer is None and self.mode is not Mode.CLOSED:
            self._timer = self._policy.call_later(wait_s, self._next_flush)

    def _next_flush(self) -> None:
        self._timer = None
        self.flush()

    # What the outlet calls

    def resume_writing(self) -> None:
        """Continue to write: the outlet's buffer has room again."""
        if self.full and self.mode is not Mode.CLOSED:
            self.mode, self.full_since = Mode.LIVE, None
            self.merge.mark_all_dirty()
            self.flush()

    def stop_awaiting(self) -> None:
        """Stop waiting for operations, if none of them exists."""
        if self.mode is not Mode.CLOSED and not (self.merge.count or self.query.endless or self.merge.absent):
            self.close("not-found", reconnect=True)

    # Implementation of `Stream`

    def _begin(self, opening_frames: list[Frame]) -> None:
        self.mode = Mode.LIVE
        first, self._first = self._first, []
        data: dict[str, object] = {"operations": self.merge.open_ids()}
        if self.merge.absent:
            data["lanes_away"] = sorted(self.merge.absent)
        if self.reset is not None:
            data["reset"] = self.reset
        self._write([*opening_frames, id_frame(self.merge.cursor()), control_frame(OPERATIONS, data), *first])
        self.merge.mark_all_dirty()
        self.flush()

    def _stop(self) -> None:
        self.mode = Mode.CATCHING_UP

    def _detach(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.merge.empty()


def _is_same_operation(first: bytes, other: bytes) -> bool:
    """Whether both positions are the start of the same operation.

    One may be its `created` entry in the feed, and the other its first event, which has the next ID.
    """
    ms, seq = order(first)
    return order(other) <= (ms, seq + 1)
