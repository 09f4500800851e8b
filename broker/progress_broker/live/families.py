"""A replica's families: an operation with its children, watched together. Events are passed to their families."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from progress_broker.errors import NotFound
from progress_broker.live.family import Family, FamilyWatcher
from progress_broker.model.children import Tree
from progress_broker.model.event import Event
from progress_broker.operations.store import Store
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.stream.subscription import Subscription

log = logging.getLogger(__name__)


class Families:
    """The hub's families. Without watchers there are none, and events cost nothing."""

    def __init__(self, store: Store, tasks: Tasks, clock: Callable[[], float]) -> None:
        self._store, self._tasks, self._clock = store, tasks, clock
        self._families: dict[str, Family] = {}
        self._names: dict[Family, set[bytes]] = {}
        self._followers: dict[bytes, set[Family]] = {}
        self._read_tasks: dict[Family, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._families)

    # What the hub calls

    def join(self, subscription: Subscription, parent: str, interval_s: float) -> None:
        """Send the state of the operation's children to a subscription until it closes."""
        family = self._families.get(parent)
        if family is not None:
            subscription.side = FamilyWatcher(family, subscription, interval_s)
            return
        loop = asyncio.get_running_loop()
        family = self._families[parent] = Family(parent, self, self._clock, loop.call_later)
        subscription.side = FamilyWatcher(family, subscription, interval_s)
        self.follow(family, ())
        family.begin()

    async def reading(self, parent: str, timeout_s: float) -> None:
        """Wait for a family's read in progress, if there is one: the first frame is made from its result."""
        family = self._families.get(parent)
        read = self._read_tasks.get(family) if family is not None else None
        if read is not None:
            await asyncio.wait({read}, timeout=timeout_s)

    def dispatch(self, events: Iterable[Event]) -> None:
        """Pass events to the families that follow their operations."""
        followers = self._followers
        for event in events:
            families = followers.get(event.operation)
            if families is not None:
                for family in tuple(families):
                    _dispatch(family, event)

    def invalidate(self) -> None:
        """Reload all families, because the feed was interrupted."""
        for family in tuple(self._families.values()):
            family.invalidate()

    # What a family calls (`family.FamilyHost`)

    def read(self, family: Family) -> None:
        """Read a family's children; retry until Redis answers or the family has no watchers."""
        task = self._read_tasks[family] = self._tasks.spawn(self._read(family))
        task.add_done_callback(lambda done: self._read_done(family, done))

    def follow(self, family: Family, ids: Iterable[str]) -> None:
        """Pass the events of these operations, and of the parent, to a family."""
        before = self._names.get(family, set())
        names = self._names[family] = {id.encode() for id in (family.parent, *ids)}
        for name in names - before:
            self._followers.setdefault(name, set()).add(family)
        self._unsubscribe(family, before - names)

    def follow_also(self, family: Family, id: str) -> None:
        """Pass the events of one more operation to a family."""
        name = id.encode()
        self._names[family].add(name)
        self._followers.setdefault(name, set()).add(family)

    def empty(self, family: Family) -> None:
        """Remove a family."""
        del self._families[family.parent]
        self._unsubscribe(family, self._names.pop(family))

    # Internal

    def _unsubscribe(self, family: Family, names: Iterable[bytes]) -> None:
        for name in names:
            families = self._followers[name]
            families.discard(family)
            if not families:
                del self._followers[name]

    async def _read(self, family: Family) -> None:
        try:
            tree = await until_back(lambda: self._store.family(family.parent), wanted=lambda: family.watchers)
            if tree is not None and family.watchers:
                if away := frozenset(tree.lanes_away):
                    tree.keep(family.tree, lambda id: self._store.keyspace.lane_of(id) in away)
                family.take(tree)
        except NotFound:  # another program has overwritten the parent's data
            family.take(Tree())
        except Exception:
            log.exception("reading the children of operation %s failed", family.parent)
            family.rest(self._clock())

    def _read_done(self, family: Family, task: "asyncio.Task[None]") -> None:
        if self._read_tasks.get(family) is task:
            del self._read_tasks[family]


def _dispatch(family: Family, event: Event) -> None:
    """Pass an event to a family. If that fails, the family is reloaded, and other streams are not affected."""
    try:
        family.apply(event)
    except Exception:
        log.exception(
            "applying an event of operation %r to the children of %s failed; they are read again",
            event.operation,
            family.parent,
        )
        family.invalidate()
