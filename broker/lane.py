"""One lane of a bundle: what its members have to say leaves in the order of positions.

So one position tells what a client has been told of all of them. A frame may leave when no member can still come with
an earlier one: each has a frame waiting too, or is current; and the feed has brought all up to it.
"""

from collections.abc import Iterable
from functools import lru_cache
from heapq import heapify, heappop, heapreplace

from broker.cursor import Place
from broker.events import MISSING, PROGRESS, Frame
from broker.member import Member
from broker.positions import order as read_order
from broker.runs import SLICE_BYTES

Leaving = tuple[Member, Frame]

order = lru_cache(maxsize=8192)(read_order)  # as many who follow the same operations ask for the same


class Lane:
    """A bundle's members that share a lane."""

    __slots__ = ("_paced", "anew", "busy", "lost", "members", "number", "position", "since", "unopened", "waiting")

    def __init__(self, number: int, place: Place | None, frontier: bytes) -> None:
        self.number = number
        self.anew = place is None or place.begun
        """Whether it begins with snapshots."""
        self.since = frontier if place is None else place.position
        """Where it began: what has ended since then is told, also to who comes back before all has been told."""
        # Who comes from a replica that was ahead of this one began beyond where this one is.
        self.position = max(self.since, frontier, key=order) if self.anew else self.since
        """Up to where the client has been told all."""
        self.lost = place is not None and place.lost
        """Whether it does because storage has lost what the client knew."""
        self.members: dict[str, Member] = {}
        self.unopened: set[str] = set()
        """Members of which the client has to be told before the position means anything."""
        self.busy = 0
        """Searches under way that may bring members. Nothing leaves before: they may have earlier things to say."""
        self.waiting = False
        """Whether something was kept back when last asked."""
        self._paced: dict[str, Frame] = {}  # the newest progress of each, in order

    @property
    def place(self) -> Place:
        """What a cursor tells of it."""
        return Place(self.since, begun=True, lost=self.lost) if self.unopened else Place(self.position)

    def lose(self, position: bytes) -> None:
        """Begin anew at a position: storage has lost what was told."""
        self.position = self.since = position
        self.anew = self.lost = True

    def moved(self, member: Member, frame: Frame) -> bool:
        """Note that a frame has left; return whether its client has come further by it."""
        further = False
        if frame.wire.startswith(b"id: "):
            further = order(frame.position) > order(self.position)
            if further:
                self.position = frame.position
        elif frame.type != MISSING:  # such as an ended operation's snapshot, which its end follows
            return False
        further = further or member.operation in self.unopened
        self.unopened.discard(member.operation)
        return further and not self.unopened

    def take(self, frontier: bytes, *, most_bytes: int = SLICE_BYTES) -> tuple[list[Leaving], bool]:
        """Return what may leave now, a slice and a frame at most, and whether there may be more.

        `frontier` is up to where the feed has been handed on.
        """
        self.waiting = True
        if self.busy:
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

    def clear(self) -> list[Member]:
        """Return the members, and have none; whom the client has to be told of stays."""
        members, self.members, self._paced = list(self.members.values()), {}, {}
        return members


def _key(frame: Frame) -> tuple[int, int]:
    return order(frame.position) if frame.position else (0, 0)  # what has no position waits for nobody
