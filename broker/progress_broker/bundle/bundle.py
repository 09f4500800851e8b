"""A bundle: many operations on one outlet, with one cursor.

Each of them has an ordinary subscription, so a snapshot, a reset, catching up and falling back are what they are for
one. What these bring leaves lane by lane in the order of positions (`broker/progress_broker/bundle/lane.py`), and each
event's id is the cursor after it. No I/O happens here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from progress_broker.bundle.lane import Lane
from progress_broker.bundle.member import LEAST_SHARE_BYTES, Member
from progress_broker.bundle.merge import Merge
from progress_broker.bundle.query import Query
from progress_broker.model.event import MISSING, OPERATIONS
from progress_broker.model.index_terms import Facts
from progress_broker.model.position import order
from progress_broker.stream.batching import SLICE_BYTES
from progress_broker.stream.delivery import Delivery, Terms
from progress_broker.stream.frames import Frame, id_frame, told_frame
from progress_broker.stream.outlet import NO_OUTLET
from progress_broker.stream.stream import Mode, Stream
from progress_broker.stream.subscription import Subscription
from progress_broker.stream.throttle import Cancellable

HOLD_BYTES = 262_144
"""What all members may hold back together, about: each gets an equal share, but never less than one frame."""

Admit = Callable[[Facts], bool]
"""Whether who follows may see an operation; one that may not be seen looks like one that is not there."""


def anything(_: Facts) -> bool:
    """Admit it."""
    return True


class Home(Protocol):
    """What a bundle asks of its hub."""

    @property
    def frontier(self) -> Mapping[int, bytes]:
        """Up to where each lane's feed has been handed on."""

    def stir(self, bundle: "Bundle") -> None:
        """Call `flush` soon, and at the end of the batch that is being handed on."""

    def place(self, bundle: "Bundle", member: Member, after: bytes | None, reset: str | None = None) -> None:
        """Have a new member's subscription begin after a position, or with a snapshot."""


class Bundle(Stream):
    """One client's place in many operations' logs. It stands where a `Subscription` stands for one."""

    def __init__(
        self, query: Query, delivery: Delivery, terms: Terms, home: Home, most: int, admit: Admit = anything
    ) -> None:
        super().__init__(delivery, terms)
        self.query, self.admit = query, admit
        self.merge = Merge(home, delivery.interval_s, terms.clock)
        self.awaited: set[str] = set()
        """Ids of which there is no operation yet."""
        self.reset: str | None = None
        """Why it begins anew, though its client has a cursor."""
        self.members_delivery = replace(delivery, interval_s=0, children=False, holder=None, deadline=inf, first=())
        """How its members' events are wanted; their pace is the bundle's."""
        self._home = home
        self._most = most
        self._first: list[Frame] = []
        self._flushing = False
        self._timer: Cancellable | None = None

    def __len__(self) -> int:
        return self.merge.count

    @property
    def operation(self) -> str:
        """Return the sign for many."""
        return "*"

    @property
    def holder(self) -> Any:
        """For whom it was opened."""
        return self.delivery.holder

    @property
    def full(self) -> bool:
        """Whether its client has no room for more."""
        return self.full_since is not None

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        """Those of its members."""
        return self.merge.subscriptions()

    @property
    def share_bytes(self) -> int:
        """How much each member may hold."""
        return max(LEAST_SHARE_BYTES, min(SLICE_BYTES, HOLD_BYTES // max(1, self.merge.count)))

    # Its members

    def follow(self, facts: Facts, number: int, after: bytes | None, reset: str | None = None) -> None:
        """Have an operation as a member that its client knows up to a position, or does not know."""
        if self.mode is Mode.CLOSED:
            return
        before = self.merge.lane(number).members.get(facts.operation)
        if before is not None and not _one_life(before.first, facts.first):
            before.fail("gone")  # it was deleted, and its id is used again
            after, reset = None, None
        if self.merge.follows(facts, number):
            return
        if self.merge.count >= self._most:
            self.close("too-many-operations", reconnect=True)
            return
        self.awaited.discard(facts.operation)
        member = Member(facts.operation, number, self, facts.first)
        self.merge.add(member, known=after is not None)
        self._home.place(self, member, after, reset)

    def has(self, member: Member) -> bool:
        """Whether something is still expected of a member."""
        return self.mode is not Mode.CLOSED and not member.closed and self.merge.has(member)

    def appeared(self, facts: Facts, number: int) -> None:
        """Follow an operation that was just created, if its client may see it and has not been told of it yet."""
        lane = self.merge.lane(number)
        if order(facts.first) <= order(lane.position) or not self.admit(facts):
            return
        self.follow(facts, number, None)

    def missing(self, operation: str, reason: str) -> None:
        """Tell that there is no such operation, or no longer."""
        frame = told_frame(MISSING, {"operation": operation, "reason": reason})
        if self.outlet is NO_OUTLET:
            self._first.append(frame)
        else:
            self._write([frame])

    def stirred(self, member: Member) -> None:
        """Note that a member's lane may move."""
        lane = self.merge.lanes[member.lane]
        if lane not in self.merge.stirred:
            self.stir(lane)

    def resetting(self, member: Member, reason: str) -> None:
        """Note that a member's client is owed a reset."""
        self.merge.resetting(member, lost=reason == "lost")

    def finished(self, member: Member) -> None:
        """Note that a member's end has come."""
        if self.mode is not Mode.CLOSED:
            if not member.pending:  # its client has been told its end
                self.merge.drop(member)
            self.stirred(member)

    def draining(self) -> None:
        """Send the client away."""
        self.close("draining", reconnect=True)

    def stir(self, lane: Lane) -> None:
        """Note that a lane may move."""
        self.merge.stir(lane)
        self._home.stir(self)

    # What leaves

    def handed_on(self) -> None:
        """Let go of what waited for the feed, which has come further."""
        self.merge.stir_waiting()
        self.flush()

    def flush(self) -> None:
        """Let go of what may leave, as far as there is room; close, if that was all there can be."""
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
        if not (self.merge.count or self.query.endless or self.awaited):
            self.close("ended")
        wait_s = self.merge.wait_s()
        if wait_s is not None and self._timer is None and self.mode is not Mode.CLOSED:
            self._timer = self._terms.call_later(wait_s, self._beat)

    def _beat(self) -> None:
        self._timer = None
        self.flush()

    # What the outlet calls

    def drained(self) -> None:
        """Go on: the outlet has room again."""
        if self.full and self.mode is not Mode.CLOSED:
            self.mode, self.full_since = Mode.LIVE, None
            self.merge.stir_all()
            self.flush()

    def give_up(self) -> None:
        """Stop awaiting operations, if none has appeared."""
        if self.mode is not Mode.CLOSED and not self.merge.count and not self.query.endless:
            self.close("not-found", reconnect=True)

    # What it does in its own way (`Stream`)

    def _begin(self, opening: list[Frame]) -> None:
        self.mode = Mode.LIVE
        first, self._first = self._first, []
        told: dict[str, object] = {"operations": self.merge.names()}
        if self.reset is not None:
            told["reset"] = self.reset
        self._write([*opening, id_frame(self.merge.cursor()), told_frame(OPERATIONS, told), *first])
        self.merge.stir_all()
        self.flush()

    def _stop(self) -> None:
        self.mode = Mode.CATCHING_UP

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.merge.empty()


def _one_life(first: bytes, other: bytes) -> bool:
    """Whether one operation begins at both: at its entry in the feed, or at its first event, which has the next ID."""
    ms, seq = order(first)
    return order(other) <= (ms, seq + 1)
