"""A family: an operation whose children are watched with it. It keeps the state of each child, and sends it to clients.

Changes come from the feed, which this replica reads anyway, so watching a child costs nothing in Redis. The children
are read when the family starts, when there is a new child, and when events may have been missed. No I/O happens here,
and the clock is passed in.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import orjson

from progress_broker.model.children import MAX_READ, Child, Tree, read_child_notice
from progress_broker.model.event import CHILD, Event
from progress_broker.model.operation import ChildrenSummary
from progress_broker.model.position import START, milliseconds, order
from progress_broker.stream.frames import Frame, children_frame
from progress_broker.stream.subscription import Subscription
from progress_broker.stream.throttle import Cancellable

log = logging.getLogger(__name__)

INTERVAL_S = 0.25
"""The minimum time between two frames, and between two reads."""
_REST_PER_READ = 10  # after a read or a frame it pauses for this many times its duration: longer for large families
_REST_AFTER_FAULT_S = 10.0
_REST_WHILE_PARTIAL_S = 2.0
_NOBODY = ChildrenSummary(total=0, done=0, failed=0, cancelled=0, running=0, percent=0)


class FamilyHost(Protocol):
    """What a family needs from its hub."""

    def read(self, family: "Family") -> None:
        """Read the children, then call `take`."""

    def follow(self, family: "Family", ids: Iterable[str]) -> None:
        """Call `apply` with the events of these operations and of the parent, and of no others."""

    def follow_also(self, family: "Family", id: str) -> None:
        """Also call `apply` with the events of this operation."""

    def empty(self, family: "Family") -> None:
        """Remove the family, because it has no watchers any more."""


class Family:
    """One watched parent, shared by all clients that watch its children."""

    __slots__ = (
        "_began",
        "_changed",
        "_data",
        "_host",
        "_invalidated",
        "_read_at",
        "_reading",
        "_show_at",
        "_stale",
        "_timer",
        "_tree",
        "call_later",
        "clock",
        "frame",
        "parent",
        "version",
        "watchers",
    )

    def __init__(
        self,
        parent: str,
        host: FamilyHost,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
    ) -> None:
        self.parent = parent
        self.watchers: set[FamilyWatcher] = set()
        self.frame: Frame | None = None
        self.version = 0
        """How many frames were made."""
        self.clock, self.call_later = clock, call_later
        self._host = host
        self._tree = Tree()
        self._data = b""  # the data of the newest frame
        self._changed = False
        self._stale = False  # it must be read again
        self._invalidated = False  # events may have been lost since the read in progress began
        self._reading = False
        self._began = 0.0
        self._read_at = self._show_at = float("-inf")  # the earliest time of the next read and the next frame
        self._timer: Cancellable | None = None

    # What its host calls

    @property
    def tree(self) -> Tree:
        """The children, as they are known."""
        return self._tree

    def begin(self) -> None:
        """Read the children now."""
        self._stale, self._reading, self._began = False, True, self.clock()
        self._host.read(self)

    def apply(self, event: Event) -> None:
        """Apply an event of the parent or of one of its descendants."""
        operation = event.operation.decode()
        child = self._tree.children.get(operation)
        if event.type == CHILD:
            self._add_child(operation, event)
        elif not event.n:  # it was deleted
            self._stale = True
        elif child is not None:
            reported = self._reports_for_its_children(child, self._tree)
            self._changed |= child.apply(event)
            self._stale |= reported and child.percent is None
        self._arm()

    def take(self, tree: Tree) -> None:
        """Receive the children that were read from Redis."""
        now, before = self.clock(), self._tree.children
        for id, child in tree.children.items():
            if id in before and order(before[id].position) > order(child.position):  # newer event during the read
                reported = self._reports_for_its_children(child, tree)
                child.catch_up(before[id])
                self._stale |= reported and child.percent is None
        # Events of a new child between the read and now were not received, because it was not followed yet.
        self._stale |= tree.whole and not tree.children.keys() <= before.keys()
        self._tree, self._changed = tree, True
        if self._invalidated:  # this result may be from before a loss, so it must not win over the next read
            self._invalidated = False
            self._read_again()
        self._host.follow(self, tree.children)
        self._stale |= bool(tree.lanes_away)
        self.rest(now, _REST_WHILE_PARTIAL_S if tree.lanes_away else INTERVAL_S)

    def rest(self, now: float, at_least_s: float = INTERVAL_S) -> None:
        """Record that a read has finished."""
        self._reading = False
        self._read_at = now + max(at_least_s, _REST_PER_READ * (now - self._began))
        self._arm()

    def invalidate(self) -> None:
        """Read the children again, because events may have been missed or lost."""
        self._read_again()
        self._invalidated = self._reading
        self._stale = True
        self._arm()

    # What its watchers call

    def refresh(self) -> None:
        """Make a frame now, if something has changed. If that fails, it is tried again, and no stream is closed."""
        if not self._changed:
            return
        self._changed = False
        try:
            self._make_frame()
        except Exception:
            log.exception("making the `children` event of operation %s failed; it is tried again", self.parent)
            self._read_at = self.clock() + _REST_AFTER_FAULT_S
            self.invalidate()

    def leave(self, watcher: "FamilyWatcher") -> None:
        """Remove a watcher."""
        self.watchers.discard(watcher)
        if not self.watchers:
            if self._timer is not None:
                self._timer.cancel()
            self._host.empty(self)

    # Internal

    def _read_again(self) -> None:
        for child in self._tree.children.values():
            child.position = START.encode()

    def _make_frame(self) -> None:
        summary = self._tree.summary(self.parent)
        if summary is None and self.frame is None:  # no frame is sent before there are children
            return
        data = orjson.dumps((summary or _NOBODY).model_dump() | {"operations": self._tree.listed(self.parent)})
        if data != self._data:
            self._data, self.version = data, self.version + 1
            self.frame = children_frame(self.parent, self._tree.changed_ms, data)

    def _reports_for_its_children(self, child: Child, tree: Tree) -> bool:
        """Return whether a child's own children were not read because the child reports a percentage itself.

        They must be read when it stops reporting one.
        """
        return child.is_parent and child.id not in tree.under and child.percent is not None

    def _add_child(self, parent: str, event: Event) -> None:
        """Follow a new child from now on. Its earlier events are covered by the next read."""
        self._stale = True
        child = read_child_notice(event.data)
        known = self._tree.children
        if child is None or child.id in known or child.id == parent or len(known) >= MAX_READ:
            return
        child.created = milliseconds(event.position)
        self._tree.add_one(parent, child)
        self._host.follow_also(self, child.id)

    def _arm(self) -> None:
        due = [self._read_at] if self._stale and not self._reading else []
        due += [self._show_at] if self._changed else []
        if due and self.watchers and self._timer is None:
            self._timer = self.call_later(max(0.0, min(due) - self.clock()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now, version = self.clock(), self.version
        if self._stale and not self._reading and now >= self._read_at:
            self.begin()
        if self._changed and now >= self._show_at:
            self.refresh()
            self._show_at = now + max(INTERVAL_S, _REST_PER_READ * (self.clock() - now))
            if self.version != version:
                for watcher in tuple(self.watchers):
                    watcher.wake()
        self._arm()


class FamilyWatcher:
    """One client that watches a family (`frame_source.SideChannel`). It gets the newest frame while it is live."""

    __slots__ = ("_family", "_interval_s", "_seen", "_sent_at", "_subscription", "_timer")

    def __init__(self, family: Family, subscription: Subscription, interval_s: float) -> None:
        self._family, self._subscription, self._interval_s = family, subscription, interval_s
        self._seen = 0
        self._sent_at = float("-inf")
        self._timer: Cancellable | None = None
        family.watchers.add(self)

    def wake(self) -> None:
        """Send the newest frame, because there is a new one or because the client's interval is over."""
        self._subscription.flush_side()

    def pending(self, *, last: bool = False) -> Sequence[Frame]:
        """Return the newest frame, unless it was sent already or the client's interval is not over."""
        family = self._family
        if last:
            family.refresh()
        if family.frame is None or family.version == self._seen:
            return ()
        now = family.clock()
        if not last and now < self._sent_at + self._interval_s:
            self._wait(self._sent_at + self._interval_s - now)
            return ()
        self._seen, self._sent_at = family.version, now
        return (family.frame,)

    def leave(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._family.leave(self)

    def _wait(self, delay_s: float) -> None:
        if self._timer is None:
            self._timer = self._family.call_later(delay_s, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.wake()
