"""Facts of operations, as grants look at them: read once for all who ask, as they stay what they were."""

import time
from collections import OrderedDict
from collections.abc import Callable

from progress_broker.model.grants import Facts
from progress_broker.operations.store import Store
from progress_broker.runtime.single_flight import Flights

KEPT_S = 5.0
"""How long facts are kept: a deleted operation's id may come to be another's."""
MOST = 10_000


class FactCache:
    """Facts that were read a moment ago.

    They are taken from memory only for who may act on them. For others Redis is asked each time, as it is for an
    operation that there is none of: how long an answer takes must not tell these apart.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._kept_s = min(KEPT_S, store.settings.tombstone_s)
        self._kept: OrderedDict[str, tuple[float, Facts]] = OrderedDict()
        self._flights = Flights()

    async def of(self, operation: str, suit: Callable[[Facts], bool]) -> Facts | None:
        """Return an operation's facts, or None if there is none; they are fresh unless they suit who asks."""
        until, kept = self._kept.get(operation, (0.0, None))
        if kept is not None and self._clock() < until and suit(kept):
            return kept
        facts = await self._flights.share(operation, lambda: self._read(operation))
        if facts is None or not suit(facts):  # the read may have been under way since before it was created
            facts = await self._read(operation)
        return facts

    async def _read(self, operation: str) -> Facts | None:
        facts = await self._store.facts(operation)
        if facts is not None:
            self._kept[operation] = self._clock() + self._kept_s, facts
            self._kept.move_to_end(operation)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return facts
