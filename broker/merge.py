"""The merge: what may leave of a bundle's lanes, each event with the cursor after it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from broker import cursor
from broker.cursor import Place
from broker.events import MISSING, Frame, id_frame, strip_id
from broker.finding import Facts
from broker.lane import Lane, Leaving
from broker.member import Member
from broker.positions import order
from broker.runs import SLICE_BYTES
from broker.subscription import Subscription


class Feeds(Protocol):
    """What is known of the feeds."""

    @property
    def frontier(self) -> Mapping[int, bytes]:
        """Up to where each lane's feed has been handed on."""


class Merge:
    """The lanes of a bundle, and their members."""

    def __init__(self, feeds: Feeds, interval_s: float, clock: Callable[[], float]) -> None:
        self.lanes: dict[int, Lane] = {}
        self.stirred: set[Lane] = set()
        """Lanes of which something may leave."""
        self.count = 0
        self._feeds, self._interval_s, self._clock = feeds, interval_s, clock
        self._paced_at = float("-inf")
        self._parts: dict[int, bytes] | None = None  # of the cursor

    # Its members

    def lane(self, number: int, place: Place | None = None) -> Lane:
        """Return a lane; a new one begins at the client's place, or where the feed is."""
        lane = self.lanes.get(number)
        if lane is None:
            self._parts = None
            lane = self.lanes[number] = Lane(number, place, self._feeds.frontier[number])
        return lane

    def names(self) -> list[str]:
        """Return whom there is something to come of."""
        return [name for lane in self.lanes.values() for name, member in lane.members.items() if not member.closed]

    def subscriptions(self) -> Iterator[Subscription]:
        """Return those of its members."""
        members = (member for lane in self.lanes.values() for member in lane.members.values())
        return (member.subscription for member in members if member.subscription is not None)

    def follows(self, facts: Facts, number: int) -> bool:
        """Whether an operation is a member already, and not an earlier one of its id that has ended."""
        lane = self.lanes.get(number)
        member = None if lane is None else lane.members.get(facts.operation)
        if member is None or not member.closed:
            return member is not None
        last = member.pending[-1] if member.pending else None
        return last is not None and last.type != MISSING and order(last.position) > order(facts.first)

    def has(self, member: Member) -> bool:
        """Whether this one is a member."""
        lane = self.lanes.get(member.lane)
        return lane is not None and lane.members.get(member.operation) is member

    def add(self, member: Member) -> None:
        """Have a member."""
        members = self.lane(member.lane).members
        before = members.get(member.operation)
        members[member.operation] = member
        if before is None:
            self.count += 1
        else:  # it was deleted and created anew, before its end could leave
            member.pending.extend(before.pending)
            before.leave()

    def drop(self, member: Member) -> None:
        """Have it no more: all it had to say has left."""
        if self.has(member):
            lane = self.lanes[member.lane]
            del lane.members[member.operation]
            self.count -= 1
            self.told(lane, member.operation)

    def forget(self, operation: str) -> None:
        """Have an operation no more that was deleted before it was told."""
        for lane in self.lanes.values():
            member = lane.members.get(operation)
            if member is not None:
                member.leave()
                self.drop(member)

    def begin_anew(self, lane: Lane, operation: str) -> None:
        """Have a lane's position mean nothing before its client has been told of an operation as it is now."""
        self._parts = None
        lane.unopened.add(operation)

    def told(self, lane: Lane, operation: str) -> None:
        """Have a lane wait no more for its client to be told of an operation."""
        if operation in lane.unopened:
            self._parts = None
            lane.unopened.discard(operation)

    def emptied(self, lane: Lane) -> list[str]:
        """Have no members in a lane; return which they were."""
        self._parts = None
        members = lane.clear()
        self.count -= len(members)
        for member in members:
            member.leave()
        return [member.operation for member in members]

    def empty(self) -> None:
        """Have no members."""
        for lane in self.lanes.values():
            self.emptied(lane)
        self.stirred.clear()

    # What leaves

    @property
    def waiting(self) -> bool:
        """Whether something is kept back until the feed has come further."""
        return any(lane.waiting for lane in self.lanes.values())

    def stir_waiting(self) -> None:
        """Look again at lanes that kept something back."""
        self.stirred.update(lane for lane in self.lanes.values() if lane.waiting)

    def stir_all(self) -> None:
        """Look at all lanes again."""
        self.stirred.update(self.lanes.values())

    def cursor(self) -> bytes:
        """Return where the client stands in all lanes."""
        if self._parts is None:
            self._parts = {number: cursor.part_of(number, lane.place) for number, lane in self.lanes.items()}
        return cursor.join(self._parts.values())

    def slices(self) -> Iterator[list[Frame]]:
        """Yield what may leave, a slice at a time. What was yielded counts as told; the rest stays."""
        frames: list[Frame] = []
        size = 0
        while self.stirred:
            lane = self.stirred.pop()
            leaving, more = lane.take(self._feeds.frontier[lane.number])
            if more:
                self.stirred.add(lane)
            size += self._add(frames, lane, lane.pace(leaving) if self._interval_s else leaving)
            if size >= SLICE_BYTES:
                yield frames
                frames, size = [], 0
        if self.wait_s() == 0:
            self._paced_at = self._clock()
            for lane in self.lanes.values():
                self._add(frames, lane, lane.unpace())
        if frames:
            yield frames

    def wait_s(self) -> float | None:
        """Return how long progress is held back from now on, or None if there is none."""
        if self._interval_s and any(lane.paced for lane in self.lanes.values()):
            return max(0.0, self._paced_at + self._interval_s - self._clock())
        return None

    def _add(self, frames: list[Frame], lane: Lane, leaving: Sequence[Leaving]) -> int:
        """Append what leaves, with ids; return its size."""
        size = 0
        for member, frame in leaving:
            if lane.moved(member, frame):
                frames.append(id_frame(self._cursor(lane)))
            frames.append(strip_id(frame))
            size += len(frame.wire)
        for member, _ in leaving:
            if member.closed and not member.pending:
                self.drop(member)
        return size

    def _cursor(self, lane: Lane) -> bytes:
        """Return the cursor after this lane has moved."""
        if self._parts is not None:
            self._parts[lane.number] = cursor.part(lane.number, lane.position)
        return self.cursor()
