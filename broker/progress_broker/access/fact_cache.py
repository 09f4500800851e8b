"""A cache of the attributes of operations that grants depend on. They never change, so one read serves many callers."""

import time
from collections import OrderedDict
from collections.abc import Callable

from progress_broker.model.grants import ResourceAttributes
from progress_broker.operations.store import Store
from progress_broker.runtime.single_flight import SingleFlight

KEPT_S = 5.0
"""How long attributes are cached: a new operation may get the id of a deleted one."""
MAX_ENTRIES = 10_000


class AttributeCache:
    """The attributes that were read in the last seconds.

    The cache is used only for callers with access. For others Redis is read each time, as for an operation that does
    not exist: the response time must not show whether an operation exists.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._kept_s = min(KEPT_S, store.settings.tombstone_ttl_s)
        self._kept: OrderedDict[str, tuple[float, ResourceAttributes]] = OrderedDict()
        self._flights = SingleFlight()

    async def get(self, operation: str, suit: Callable[[ResourceAttributes], bool]) -> ResourceAttributes | None:
        """Return an operation's attributes, or None if it does not exist. Cached ones are used only if they `suit`."""
        until, kept = self._kept.get(operation, (0.0, None))
        if kept is not None and self._clock() < until and suit(kept):
            return kept
        facts = await self._flights.share(operation, lambda: self._read(operation))
        if facts is None or not suit(facts):  # the shared read may have started before the operation was created
            facts = await self._read(operation)
        return facts

    async def _read(self, operation: str) -> ResourceAttributes | None:
        facts = await self._store.attributes(operation)
        if facts is not None:
            self._kept[operation] = self._clock() + self._kept_s, facts
            self._kept.move_to_end(operation)
            if len(self._kept) > MAX_ENTRIES:
                self._kept.popitem(last=False)
        return facts
