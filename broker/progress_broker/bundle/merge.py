"""The merge: selects the frames of a bundle's lanes that may be sent, each with the cursor after it."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from progress_broker.bundle import cursor
from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.lane import Lane, Outgoing
from progress_broker.bundle.member import BundleMember
from progress_broker.model.event import MISSING
from progress_broker.model.index_terms import IndexedOperation
from progress_broker.model.position import order
from progress_broker.stream.batching import SLICE_BYTES
from progress_broker.stream.frames import Frame, id_frame, strip_id
from progress_broker.stream.subscription import Subscription


class FeedPositions(Protocol):
    """The state of the feeds."""

    @property
    def watermarks(self) -> Mapping[int, bytes]:
        """The position up to which each lane's feed has been delivered."""

    def is_up_to_date(self, lane: int, /) -> bool:
        """Whether a lane's feed is read, and all that it brought was delivered."""


class SearchGuard:
    """A search for members of some lanes: in progress from the creation of this object until its block ends.

    Searches of a lane take turns: each needs to know what the one before it found.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes, self._done = lanes, asyncio.Event()
        self._before = [lane.search for lane in lanes if lane.search is not None]
        for lane in lanes:
            lane.search = self

    async def turn(self) -> None:
        """Wait until the earlier searches of these lanes have ended."""
        for search in self._before:
            await search.wait()

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._done.wait()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for lane in self._lanes:
            if lane.search is self:
                lane.search = None


class Merge:
    """A bundle's lanes and their members. Only this class changes a lane."""

    def __init__(self, feeds: FeedPositions, interval_s: float, clock: Callable[[], float]) -> None:
        self.lanes: dict[int, Lane] = {}
        self.dirty: set[Lane] = set()
        """Lanes that may have frames to send."""
        self.absent: dict[int, LanePosition | None] = {}
        """The lanes that could not be searched yet, with the client's position, which the cursor keeps until then."""
        self.count = 0
        self._feeds, self._interval_s, self._clock = feeds, interval_s, clock
        self._released_at = float("-inf")
        self._parts: dict[int, bytes] | None = None  # of the cursor

    # Members

    def lane(self, number: int, start: LanePosition | None = None) -> Lane:
        """Return a lane. A new lane starts at the client's position, or at the feed's."""
        lane = self.lanes.get(number)
        if lane is None:
            self._parts = None
            lane = self.lanes[number] = Lane(number, start, self._feeds.watermarks[number])
        return lane

    def open_ids(self) -> list[str]:
        """Return the ids of members with events to come, be it only their end."""
        members = (member for lane in self.lanes.values() for member in lane.members.values())
        return [member.operation for member in members if member.has_events_to_come]

    def ids(self) -> set[str]:
        """Return the ids of all members."""
        return {id for lane in self.lanes.values() for id in lane.members}

    def subscriptions(self) -> Iterator[Subscription]:
        """Return the members' subscriptions."""
        members = (member for lane in self.lanes.values() for member in lane.members.values())
        return (member.subscription for member in members if member.subscription is not None)

    def follows(self, indexed: IndexedOperation, number: int) -> bool:
        """Whether an operation is already a member. An ended member may be an earlier operation with the same id."""
        lane = self.lanes.get(number)
        member = None if lane is None else lane.members.get(indexed.operation)
        if member is None or not member.closed:
            return member is not None
        last = member.pending[-1] if member.pending else None
        return last is not None and last.type != MISSING and order(last.position) > order(indexed.first)

    def has(self, member: BundleMember) -> bool:
        """Whether this object is a member."""
        lane = self.lanes.get(member.lane)
        return lane is not None and lane.members.get(member.operation) is member

    def add(self, member: BundleMember, *, known: bool) -> None:
        """Add a member. `known`: the client has the operation's events up to its position in the lane."""
        lane = self.lane(member.lane)
        before = lane.members.get(member.operation)
        lane.members[member.operation] = member
        if before is None:
            self.count += 1
        else:  # the operation was deleted and created again before its last frames were sent
            member.send_first(before.pending)
            self._settle(lane, before)
            before.leave()
        if known and lane.trimmed_since is not None:  # a reset may be due; the placer finds out
            self._parts = None
            lane.resetting.add(member)

    def drop(self, member: BundleMember) -> None:
        """Remove a member whose last frame was sent."""
        if self.has(member):
            lane = self.lanes[member.lane]
            del lane.members[member.operation]
            self.count -= 1
            self._settle(lane, member)
            self.settle_snapshot(lane, member.operation)

    def forget(self, operation: str) -> None:
        """Remove an operation that was deleted before its first frame was sent."""
        for lane in self.lanes.values():
            member = lane.members.get(operation)
            if member is not None:
                member.leave()
                self.drop(member)

    def empty(self) -> None:
        """Remove all members."""
        for lane in self.lanes.values():
            self._leave_all(lane.clear())
        self.dirty.clear()

    # Snapshots and resets that are due

    def searching(self, numbers: Iterable[int]) -> "SearchGuard":
        """Hold back the frames of some lanes until a search for members has ended. Use it as a context manager."""
        return SearchGuard([self.lanes[number] for number in numbers])

    def restart(self, lane: Lane, position: bytes) -> list[str]:
        """Restart a lane with snapshots, because its feed has lost events after a position.

        Return the ids of its former members.
        """
        return self._leave_all(lane.restart(position))

    def needs_snapshot(self, lane: Lane, operation: str) -> None:
        """Record that a lane's position is not valid before the client has received this operation's snapshot."""
        self._parts = None
        lane.snapshots_due.add(operation)

    def settle_snapshot(self, lane: Lane, operation: str) -> None:
        """Record that a lane no longer has to wait for an operation's snapshot."""
        if operation in lane.snapshots_due:
            self._parts = None
            lane.snapshots_due.discard(operation)

    def resetting(self, member: BundleMember, *, lost: bool) -> None:
        """Record in the cursor that a reset is due for a member, until it has been sent."""
        if self.has(member):
            self._parts = None
            self.lanes[member.lane].owe_reset(member, lost=lost)

    def goes_back(self, member: BundleMember, position: bytes) -> None:
        """Let the cursor go back to where a member begins again, until all that is due has been sent."""
        if self.has(member):
            self._parts = None
            self.lanes[member.lane].go_back(position)

    def trimmed_since(self, member: BundleMember) -> bytes | None:
        """Return the position after which a member's log must be complete, or else a reset is due; or None."""
        lane = self.lanes[member.lane]
        return lane.trimmed_since if member in lane.resetting else None

    def placed(self, member: BundleMember) -> None:
        """Record that a member has started. If its log is complete, no reset is due for it."""
        if member.reset is None:
            self._settle(self.lanes[member.lane], member)

    def _settle(self, lane: Lane, member: BundleMember) -> None:
        if lane.settle_reset(member):
            self._parts = None

    def _leave_all(self, members: Sequence[BundleMember]) -> list[str]:
        self._parts = None
        self.count -= len(members)
        for member in members:
            member.leave()
        return [member.operation for member in members]

    # Sending

    @property
    def waiting(self) -> bool:
        """Whether frames are held back until the feed has delivered more."""
        return any(lane.waiting for lane in self.lanes.values())

    def mark_dirty(self, lane: Lane) -> None:
        """Check a lane again."""
        self.dirty.add(lane)

    def mark_waiting_dirty(self) -> None:
        """Check all lanes again that held frames back."""
        self.dirty.update(lane for lane in self.lanes.values() if lane.waiting)

    def mark_all_dirty(self) -> None:
        """Check all lanes again."""
        self.dirty.update(self.lanes.values())

    def cursor(self) -> bytes:
        """Return the cursor: the client's position in all lanes."""
        if self._parts is None:
            self._parts = {number: cursor.part_of(number, lane.cursor_position) for number, lane in self.lanes.items()}
            for number, start in self.absent.items():
                if start is not None and number not in self.lanes:
                    self._parts[number] = cursor.part_of(number, start)
        return cursor.join(self._parts.values())

    def slices(self) -> Iterator[list[Frame]]:
        """Yield what may be sent, a slice at a time. Yielded frames count as sent; the others stay."""
        frames: list[Frame] = []
        size = 0
        while self.dirty:
            lane = self.dirty.pop()
            if not self._feeds.is_up_to_date(lane.number):
                # Members read from Redis. It may be another one, that has lost what the feed brought so far.
                lane.waiting = True
                continue
            outgoing, more = lane.take(self._feeds.watermarks[lane.number])
            if more:
                self.dirty.add(lane)
            size += self._add(frames, lane, lane.hold_progress(outgoing) if self._interval_s else outgoing)
            if size >= SLICE_BYTES:
                yield frames
                frames, size = [], 0
        if self.wait_s() == 0:
            self._released_at = self._clock()
            for lane in self.lanes.values():
                self._add(frames, lane, lane.release_progress())
        if frames:
            yield frames

    def wait_s(self) -> float | None:
        """Return for how many more seconds progress is held back, or None if none is."""
        if self._interval_s and any(lane.holds_progress for lane in self.lanes.values()):
            return max(0.0, self._released_at + self._interval_s - self._clock())
        return None

    def _add(self, frames: list[Frame], lane: Lane, outgoing: Sequence[Outgoing]) -> int:
        """Append the frames to send, with ids; return their size."""
        size = 0
        for member, frame in outgoing:
            if lane.sent(member, frame):
                frames.append(id_frame(self._cursor(lane)))
            frames.append(strip_id(frame))
            size += len(frame.wire)
        for member, _ in outgoing:
            if member.closed and not member.pending:
                self.drop(member)
        for member in tuple(lane.resetting):
            if member.has_sent_reset():
                self._settle(lane, member)
        return size

    def _cursor(self, lane: Lane) -> bytes:
        """Return the cursor after this lane has changed."""
        if self._parts is not None:
            # Nearly always: then it costs only a cache look-up.
            clean = not (lane.resetting or lane.snapshots_due)
            part = (
                cursor.part(lane.number, lane.position) if clean else cursor.part_of(lane.number, lane.cursor_position)
            )
            self._parts[lane.number] = part
        return self.cursor()
