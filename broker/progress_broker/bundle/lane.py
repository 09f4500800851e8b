"""One lane of a bundle: what its members have to say leaves in the order of positions.

So one position tells what a client has been told of all of them. A frame may leave when no member can still come with
an earlier one: each has a frame waiting too, or is current; and the feed has brought all up to it.

The exception is a reset: it is told by a snapshot as of now, which is ahead of what other members have yet to say.
Until it has left, the lane's place tells that it is owed.
"""

from collections.abc import Iterable
from functools import lru_cache
from heapq import heapify, heappop, heapreplace

from progress_broker.bundle.cursor import Place
from progress_broker.bundle.member import Member
from progress_broker.model.event import MISSING, PROGRESS
from progress_broker.model.position import order as read_order
from progress_broker.stream.batching import SLICE_BYTES
from progress_broker.stream.frames import Frame

Leaving = tuple[Member, Frame]

order = lru_cache(maxsize=8192)(read_order)  # as many who follow the same operations ask for the same


class Lane:
    """A bundle's members that share a lane, and what its client was told of them. Only `Merge` changes it."""

    __slots__ = (
        "_paced",
        "history_lost",
        "lost",
        "members",
        "needs_snapshots",
        "number",
        "position",
        "resetting",
        "searches",
        "since",
        "trimmed_since",
        "untold",
        "waiting",
    )

    def __init__(self, number: int, place: Place | None, frontier: bytes) -> None:
        self.number = number
        self.needs_snapshots = place is None or place.partial
        """Whether its operations are told by snapshots first."""
        self.since = frontier if place is None else place.position
        """Where it began. What ended after that is told, also to a client that is cut off before it was told of all."""
        # Another replica may have been ahead of this one: then the client began beyond where this one is.
        self.position = max(self.since, frontier, key=order) if self.needs_snapshots else self.since
        """Up to where the client has been told all."""
        self.lost = place is not None and place.lost
        """Whether it needs snapshots because storage has lost what the client knew."""
        self.members: dict[str, Member] = {}
        self.untold: set[str] = set()
        """Operations of which the client has to be told before the position means anything."""
        self.resetting: set[Member] = set()
        """Members that owe the client a snapshot with a reset, or may owe it: those of a client to whom one was owed
        when it was cut off. That snapshot is ahead of the lane, so other events leave before it."""
        self.trimmed_since = None if place is None else place.trimmed_since
        """Where the lane was when the first of those resets became due."""
        self.history_lost = False
        """Whether one of them is due because storage has lost history, and not because it was trimmed."""
        self.searches = 0
        """Searches under way that may bring members. Nothing leaves before: they may have earlier things to say."""
        self.waiting = False
        """Whether something was kept back when last asked."""
        self._paced: dict[str, Frame] = {}  # the newest progress of each, in order

    @property
    def place(self) -> Place:
        """What a cursor tells of it."""
        if self.untold:
            return Place(self.since, partial=True, lost=self.lost)
        if not self.resetting:
            return Place(self.position)
        if self.history_lost:  # what is kept now does not show whose history was lost: all are told again
            return Place(self.trimmed_since or self.position, partial=True, lost=True)
        return Place(self.position, trimmed_since=self.trimmed_since)

    def restart(self, position: bytes) -> list[Member]:
        """Begin again with snapshots: storage has lost what came after a position. Return the members it had."""
        # The clock that positions are made of did not go back, so what ended after both positions has not been told.
        self.since = min(self.position, position, key=order)
        self.position = position
        self.needs_snapshots = self.lost = True
        members = self.clear()
        self.untold.update(member.operation for member in members)
        return members

    def clear(self) -> list[Member]:
        """Return the members, and have none. Operations that the client has to be told of stay so."""
        members, self.members, self._paced = list(self.members.values()), {}, {}
        self.resetting.clear()
        self.trimmed_since, self.history_lost = None, False
        return members

    def owe_reset(self, member: Member, *, lost: bool) -> None:
        """Remember that the client has to be told of a reset before the position tells all of this member."""
        if not self.resetting:
            self.trimmed_since = self.position
        self.resetting.add(member)
        self.history_lost |= lost

    def settle_reset(self, member: Member) -> bool:
        """Owe no reset of a member any more; return whether it may have been owed."""
        if member not in self.resetting:
            return False
        self.resetting.discard(member)
        if not self.resetting:
            self.trimmed_since, self.history_lost = None, False
        return True

    def moved(self, member: Member, frame: Frame) -> bool:
        """Note that a frame has left; return whether its client has come further by it."""
        further = False
        if frame.wire.startswith(b"id: "):
            further = order(frame.position) > order(self.position)
            if further:
                self.position = frame.position
            if self.resetting and member.reset_told_by(frame):
                further |= self.settle_reset(member)
        elif frame.type == MISSING and member.closed:
            further = self.settle_reset(member)
        else:  # the snapshot of an ended operation, before its end; or what tells of an earlier one with the same id
            return False
        further = further or member.operation in self.untold
        self.untold.discard(member.operation)
        return further and not self.untold

    def take(self, frontier: bytes, *, most_bytes: int = SLICE_BYTES) -> tuple[list[Leaving], bool]:
        """Return what may leave now, a slice and a frame at most, and whether there may be more.

        `frontier` is up to where the feed has been handed on.
        """
        self.waiting = True
        if self.searches:
            return [], False
        pending: list[Member] = []
        for member in self.members.values():
            if member.pending:
                pending.append(member)
            elif not (member.closed or member.current):
                return [], False
        bound = order(frontier)
        heads = [(_key(member.pending[0]), member.operation, member) for member in pending]
        heapify(heads)
        leaving: list[Leaving] = []
        while heads and heads[0][0] <= bound:
            member = heads[0][2]
            frame = member.pop()
            leaving.append((member, frame))
            most_bytes -= len(frame.wire)
            if member.pending:
                heapreplace(heads, (_key(member.pending[0]), member.operation, member))
            else:
                heappop(heads)
                if not (member.closed or member.current):
                    member.refill()
                    if member.pending or not (member.closed or member.current):
                        return leaving, True
            if most_bytes <= 0:
                return leaving, True
        self.waiting = bool(heads)
        return leaving, False

    def pace(self, leaving: Iterable[Leaving]) -> list[Leaving]:
        """Hold back each member's newest progress; return what may not wait, with what has to come before it."""
        passing: list[Leaving] = []
        for member, frame in leaving:
            if frame.type == PROGRESS:
                self._paced.pop(member.operation, None)
                self._paced[member.operation] = frame
                continue
            passing += self.unpace()
            passing.append((member, frame))
        return passing

    @property
    def paced(self) -> bool:
        """Whether progress is held back."""
        return bool(self._paced)

    def unpace(self) -> list[Leaving]:
        """Return what is held back, and hold it no more."""
        paced, self._paced = self._paced, {}
        return [(self.members[name], frame) for name, frame in paced.items() if name in self.members]


def _key(frame: Frame) -> tuple[int, int]:
    return order(frame.position) if frame.position else (0, 0)  # what has no position waits for nobody
