"""The merge: what may leave of a bundle's lanes, each event with the cursor after it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from progress_broker.bundle import cursor
from progress_broker.bundle.cursor import Place
from progress_broker.bundle.lane import Lane, Leaving
from progress_broker.bundle.member import Member
from progress_broker.model.event import MISSING
from progress_broker.model.index_terms import Facts
from progress_broker.model.position import order
from progress_broker.stream.batching import SLICE_BYTES
from progress_broker.stream.frames import Frame, id_frame, strip_id
from progress_broker.stream.subscription import Subscription


class Feeds(Protocol):
    """What is known of the feeds."""

    @property
    def frontier(self) -> Mapping[int, bytes]:
        """Up to where each lane's feed has been handed on."""


class Searching:
    """Searches for members of some lanes, under way from when this is made until it is left."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        for lane in lanes:
            lane.searches += 1

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        for lane in self._lanes:
            lane.searches -= 1


class Merge:
    """The lanes of a bundle, and their members: the one that changes what is known of a lane."""

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
        """Return the ids of members that have not ended."""
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

    def add(self, member: Member, *, known: bool) -> None:
        """Have a member, whose operation the client knows up to its place or does not know."""
        lane = self.lane(member.lane)
        before = lane.members.get(member.operation)
        lane.members[member.operation] = member
        if before is None:
            self.count += 1
        else:  # it was deleted and created again, before its end could leave
            member.pending.extend(before.pending)
            self._settle(lane, before)
            before.leave()
        if known and lane.trimmed_since is not None:  # its placer will see
            self._parts = None
            lane.resetting.add(member)

    def drop(self, member: Member) -> None:
        """Have it no more: all it had to say has left."""
        if self.has(member):
            lane = self.lanes[member.lane]
            del lane.members[member.operation]
            self.count -= 1
            self._settle(lane, member)
            self.told(lane, member.operation)

    def forget(self, operation: str) -> None:
        """Have an operation no more that was deleted before it was told."""
        for lane in self.lanes.values():
            member = lane.members.get(operation)
            if member is not None:
                member.leave()
                self.drop(member)

    def empty(self) -> None:
        """Have no members."""
        for lane in self.lanes.values():
            self._let_go(lane.clear())
        self.stirred.clear()

    # What has to be told of them first

    def searching(self, numbers: Iterable[int]) -> "Searching":
        """Let nothing leave some lanes from now on until the search for members is over: use it as a context."""
        return Searching([self.lanes[number] for number in numbers])

    def restart(self, lane: Lane, position: bytes) -> list[str]:
        """Begin a lane again with snapshots: storage has lost what came after a position. Return whom it had."""
        return self._let_go(lane.restart(position))

    def needs_snapshot(self, lane: Lane, operation: str) -> None:
        """Have a lane's position mean nothing before its client has been told of an operation by a snapshot."""
        self._parts = None
        lane.untold.add(operation)

    def told(self, lane: Lane, operation: str) -> None:
        """Have a lane wait no more for its client to be told of an operation."""
        if operation in lane.untold:
            self._parts = None
            lane.untold.discard(operation)

    def resetting(self, member: Member, *, lost: bool) -> None:
        """Tell in the cursor that a member's client is owed a reset, until that has left."""
        if self.has(member):
            self._parts = None
            self.lanes[member.lane].owe_reset(member, lost=lost)

    def trimmed_since(self, member: Member) -> bytes | None:
        """Return since where a member's log must be whole, because its client may be owed a reset; None if it isn't."""
        lane = self.lanes[member.lane]
        return lane.trimmed_since if member in lane.resetting else None

    def placed(self, member: Member) -> None:
        """Note that a member has begun. If it owes no reset, then its client was not cut off before it was told one."""
        if member.reset is None:
            self._settle(self.lanes[member.lane], member)

    def _settle(self, lane: Lane, member: Member) -> None:
        if lane.settle_reset(member):
            self._parts = None

    def _let_go(self, members: Sequence[Member]) -> list[str]:
        self._parts = None
        self.count -= len(members)
        for member in members:
            member.leave()
        return [member.operation for member in members]

    # What leaves

    @property
    def waiting(self) -> bool:
        """Whether something is kept back until the feed has come further."""
        return any(lane.waiting for lane in self.lanes.values())

    def stir(self, lane: Lane) -> None:
        """Look at a lane again."""
        self.stirred.add(lane)

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
            clean = not lane.resetting  # nearly always, and then a look-up is all it costs
            part = cursor.part(lane.number, lane.position) if clean else cursor.part_of(lane.number, lane.place)
            self._parts[lane.number] = part
        return self.cursor()
