"""The families that a replica's clients look on: each operation's events go to those it belongs to."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from progress_broker.errors import NotFound
from progress_broker.live.family import Family, Onlooker
from progress_broker.model.children import Tree
from progress_broker.model.event import Event
from progress_broker.operations.store import Store
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.stream.subscription import Subscription

log = logging.getLogger(__name__)


class Families:
    """The hub's families. Where nobody looks on, there are none, and the feed's events pass by."""

    def __init__(self, store: Store, tasks: Tasks, clock: Callable[[], float]) -> None:
        self._store, self._tasks, self._clock = store, tasks, clock
        self._families: dict[str, Family] = {}
        self._names: dict[Family, set[bytes]] = {}
        self._hearing: dict[bytes, set[Family]] = {}
        self._reads: dict[Family, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._families)

    # What the hub calls

    def join(self, subscription: Subscription, parent: str, interval_s: float) -> None:
        """Have a subscription be told of its operation's children, until it leaves."""
        family = self._families.get(parent)
        if family is not None:
            subscription.aside = Onlooker(family, subscription, interval_s)
            return
        loop = asyncio.get_running_loop()
        family = self._families[parent] = Family(parent, self, self._clock, loop.call_later)
        subscription.aside = Onlooker(family, subscription, interval_s)
        self.follow(family, ())
        family.begin()

    async def reading(self, parent: str, timeout_s: float) -> None:
        """Wait for the read of a family that is under way, if there is one: the first frame is made of it."""
        family = self._families.get(parent)
        read = self._reads.get(family) if family is not None else None
        if read is not None:
            await asyncio.wait({read}, timeout=timeout_s)

    def hear(self, events: Iterable[Event]) -> None:
        """Hand events to the families they concern."""
        hearing = self._hearing
        for event in events:
            families = hearing.get(event.operation)
            if families is not None:
                for family in tuple(families):
                    _hear(family, event)

    def doubt(self) -> None:
        """Have all families read again: the feed was interrupted."""
        for family in tuple(self._families.values()):
            family.doubt()

    # What a family calls (`family.Home`)

    def read(self, family: Family) -> None:
        """Read a family's children, trying until Redis is back or nobody looks on."""
        task = self._reads[family] = self._tasks.spawn(self._read(family))
        task.add_done_callback(lambda done: self._read_done(family, done))

    def follow(self, family: Family, ids: Iterable[str]) -> None:
        """Hand a family the events of these operations, and its parent's."""
        before = self._names.get(family, set())
        names = self._names[family] = {id.encode() for id in (family.parent, *ids)}
        for name in names - before:
            self._hearing.setdefault(name, set()).add(family)
        self._unhear(family, before - names)

    def follow_also(self, family: Family, id: str) -> None:
        """Hand a family the events of this operation, too."""
        name = id.encode()
        self._names[family].add(name)
        self._hearing.setdefault(name, set()).add(family)

    def empty(self, family: Family) -> None:
        """Forget a family."""
        del self._families[family.parent]
        self._unhear(family, self._names.pop(family))

    # Within

    def _unhear(self, family: Family, names: Iterable[bytes]) -> None:
        for name in names:
            families = self._hearing[name]
            families.discard(family)
            if not families:
                del self._hearing[name]

    async def _read(self, family: Family) -> None:
        try:
            tree = await until_back(lambda: self._store.family(family.parent), wanted=lambda: family.onlookers)
            if tree is not None and family.onlookers:
                family.take(tree)
        except NotFound:  # another program wrote something else in the place of the parent
            family.take(Tree())
        except Exception:
            log.exception("the children of operation %s can't be read", family.parent)
            family.rest(self._clock())

    def _read_done(self, family: Family, task: "asyncio.Task[None]") -> None:
        if self._reads.get(family) is task:
            del self._reads[family]


def _hear(family: Family, event: Event) -> None:
    """Hand a family an event. A fault in it costs no other stream of this replica: it reads its children again."""
    try:
        family.hear(event)
    except Exception:
        log.exception("an event of operation %r can't be told to the family of %s", event.operation, family.parent)
        family.doubt()
