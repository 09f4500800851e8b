"""One lane of a bundle: it sends its members' frames in the order of positions.

So one position describes what the client has received of all members. A frame may be sent when no member can still
produce an earlier one: each other member has a waiting frame or is current, and the feed was delivered up to the frame.

The exception is a reset. It is sent as a snapshot of the current state, which is newer than the waiting frames of other
members; or, after a loss, at an event that is older than what was sent. Until it has been sent, and after a loss also
what was stored meanwhile, the lane's part of the cursor says that it is due.
"""

from collections.abc import Iterable
from functools import lru_cache
from heapq import heapify, heappop, heapreplace
from typing import Protocol

from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.member import BundleMember
from progress_broker.model.event import MISSING, PROGRESS, SNAPSHOT
from progress_broker.model.position import order as read_order
from progress_broker.stream.batching import SLICE_BYTES
from progress_broker.stream.frames import Frame

Outgoing = tuple[BundleMember, Frame]

order = lru_cache(maxsize=8192)(read_order)  # bundles that follow the same operations look up the same positions


class Search(Protocol):
    """A search for members of a lane."""

    async def wait(self) -> None:
        """Wait until it has ended."""


class Lane:
    """A bundle's members in one lane, and what the client has received of them. Only `Merge` changes it."""

    __slots__ = (
        "_held_progress",
        "_went_back",
        "history_lost",
        "lost",
        "members",
        "needs_snapshots",
        "number",
        "position",
        "resetting",
        "search",
        "since",
        "snapshots_due",
        "trimmed_since",
        "waiting",
    )

    def __init__(self, number: int, start: LanePosition | None, watermark: bytes) -> None:
        self.number = number
        self.needs_snapshots = start is None or start.partial
        """Whether its operations start with snapshots."""
        self.since = watermark if start is None else start.position
        """Its start position. Ends after it are sent, also to a client that reconnects before it had all snapshots."""
        self.lost = start is not None and start.lost
        """Whether it needs snapshots because Redis has lost history. These are older than all events that follow."""
        # Another replica may have been ahead of this one: then the client's position is after this replica's.
        is_ahead = self.needs_snapshots and not self.lost
        self.position = max(self.since, watermark, key=order) if is_ahead else self.since
        """The position up to which the client has received everything."""
        self.members: dict[str, BundleMember] = {}
        self.snapshots_due: set[str] = set()
        """Operations whose snapshot must be sent before the position is valid."""
        self.resetting: set[BundleMember] = set()
        """Members for which a snapshot with a reset is due, or may be due: a client may have disconnected before it got
        one. That snapshot is ahead of the lane, so other events are sent before it."""
        self.trimmed_since = None if start is None else start.trimmed_since
        """The lane's position when the first of these resets became due."""
        self.history_lost = False
        """Whether one of them is due because Redis has lost history, and not because it was trimmed."""
        self.search: Search | None = None
        """The last search in progress. Nothing is sent meanwhile: new members may have earlier events."""
        self.waiting = False
        """Whether frames were held back at the last `take`."""
        self._held_progress: dict[str, Frame] = {}  # the newest `progress` of each member, in order
        self._went_back = False  # since then its client has got no cursor

    @property
    def cursor_position(self) -> LanePosition:
        """The lane's part of the cursor."""
        if self.snapshots_due:
            return LanePosition(self.since, partial=True, lost=self.lost)
        if not self.resetting:
            return LanePosition(self.position)
        if self.history_lost:  # Redis can't tell whose history was lost, so all snapshots are sent again
            return LanePosition(self.trimmed_since or self.position, partial=True, lost=True)
        return LanePosition(self.position, trimmed_since=self.trimmed_since)

    @property
    def restarted_at(self) -> bytes | None:
        """Where the client and Redis have the same, while snapshots are due because of a loss."""
        return self.since if self.lost and self.snapshots_due else None

    def restart(self, position: bytes) -> list[BundleMember]:
        """Restart where Redis and the client have the same events: at the client's position, or up to where Redis has
        what its feed told, if that is older. Return the former members."""
        self.since = self.position = min(self.cursor_position.position, position, key=order)
        self.needs_snapshots = self.lost = self._went_back = True
        members = self.clear()
        self.snapshots_due.update(member.operation for member in members)
        return members

    def clear(self) -> list[BundleMember]:
        """Remove and return the members. `snapshots_due` stays unchanged."""
        members, self.members, self._held_progress = list(self.members.values()), {}, {}
        self.resetting.clear()
        self.trimmed_since, self.history_lost = None, False
        return members

    def owe_reset(self, member: BundleMember, *, lost: bool) -> None:
        """Record that a reset is due. Until it is sent, the position is not valid for this member."""
        if not self.resetting:
            self.trimmed_since = self.position
        self.resetting.add(member)
        self.history_lost |= lost
        if lost:
            self._held_progress.pop(member.operation, None)

    def go_back(self, position: bytes) -> None:
        """Record that a snapshot that is due tells of a loss after a position: behind it, a client has no more."""
        if self.trimmed_since is not None:
            self.trimmed_since = min(self.trimmed_since, position, key=order)

    def settle_reset(self, member: BundleMember) -> bool:
        """Record that no reset is due for a member; return whether one was or may have been due."""
        if member not in self.resetting:
            return False
        self.resetting.discard(member)
        if not self.resetting:
            self.trimmed_since, self.history_lost = None, False
        return True

    def sent(self, member: BundleMember, frame: Frame) -> bool:
        """Record that a frame was sent; return whether the client needs the cursor after it."""
        went_back, self._went_back = self._went_back, False
        further = False
        if frame.wire.startswith(b"id: "):
            behind = order(frame.position) < order(self.position)
            further = order(frame.position) > order(self.position)
            if further:
                self.position = frame.position
            if self.resetting and member.reset_sent_with(frame, behind=behind):
                further |= self.settle_reset(member)
            elif member in self.resetting and frame.type == SNAPSHOT:
                further = True  # what is due is before the position that the client has
        elif frame.type == MISSING and member.closed:
            further = self.settle_reset(member)
        else:  # the snapshot of an ended operation, before its `end`; or `missing` for an earlier one with the same id
            return went_back
        further = further or member.operation in self.snapshots_due
        self.snapshots_due.discard(member.operation)
        return went_back or (further and not self.snapshots_due)

    def take(self, watermark: bytes, *, most_bytes: int = SLICE_BYTES) -> tuple[list[Outgoing], bool]:
        """Return what may be sent now, at most a slice and one frame, and whether there may be more.

        `watermark` is the position up to which the feed has been delivered.
        """
        self.waiting = True
        if self.search is not None:
            return [], False
        pending: list[BundleMember] = []
        for member in self.members.values():
            if member.pending:
                pending.append(member)
            elif not (member.closed or member.current):
                return [], False
        bound = order(watermark)
        heads = [(_key(member.pending[0]), member.operation, member) for member in pending]
        heapify(heads)
        outgoing: list[Outgoing] = []
        while heads and heads[0][0] <= bound:
            member = heads[0][2]
            frame = member.pop()
            outgoing.append((member, frame))
            most_bytes -= len(frame.wire)
            if member.pending:
                heapreplace(heads, (_key(member.pending[0]), member.operation, member))
            else:
                heappop(heads)
                if not (member.closed or member.current):
                    member.refill()
                    if member.pending or not (member.closed or member.current):
                        return outgoing, True
            if most_bytes <= 0:
                return outgoing, True
        self.waiting = bool(heads)
        return outgoing, False

    def hold_progress(self, outgoing: Iterable[Outgoing]) -> list[Outgoing]:
        """Hold back each member's newest progress; return the other frames, with the progress that precedes them."""
        others: list[Outgoing] = []
        for member, frame in outgoing:
            if frame.type == PROGRESS:
                self._held_progress.pop(member.operation, None)
                self._held_progress[member.operation] = frame
                continue
            others += self.release_progress()
            others.append((member, frame))
        return others

    @property
    def holds_progress(self) -> bool:
        """Whether any progress is held back."""
        return bool(self._held_progress)

    def release_progress(self) -> list[Outgoing]:
        """Return and release the progress that is held back."""
        held, self._held_progress = self._held_progress, {}
        return [(self.members[name], frame) for name, frame in held.items() if name in self.members]


def _key(frame: Frame) -> tuple[int, int]:
    return order(frame.position) if frame.position else (0, 0)  # a frame without a position never waits
