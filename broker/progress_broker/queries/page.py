"""Pages of operations in an order, the newest first, by merging the lanes. Cursors stay valid if operations change.

A script of each lane leaves out most of what does not match. What it returns is decided on the snapshots.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from progress_broker.model.operation import Operation
from progress_broker.operations.loading import Loaded, load_each, rolled_up
from progress_broker.operations.store import Store
from progress_broker.queries.choice import Choice, Order, choose, in_order
from progress_broker.queries.filters import Filters
from progress_broker.queries.list_cursor import Mark, read_cursor, write_cursor
from progress_broker.queries.scan import Part, after, read_part, walk_call

_LOOKED = 1_500
"""Operations that scripts look at for one page, about. With a filter that rarely matches, the page is short and has a
cursor, and Redis stays fast."""
_LOOKED_AT_ONCE = 750
"""Those of one round trip, about, in all lanes together."""
_LOOKED_IN_LANE = 250
_LOADED = 500
"""Maximum operations loaded for one page."""
_LOADED_AT_ONCE = 200


class Page(NamedTuple):
    """A page of operations."""

    operations: list[Operation]
    next_cursor: str | None
    """The cursor of the next page, or None at the end."""
    lanes_away: Sequence[int]
    """The lanes that could not be reached. What they have is missing."""


async def find_page(
    store: Store, filters: Filters, *, order: Order = Order.CHANGED, limit: int = 50, cursor: str | None = None
) -> Page:
    """Return a page of the operations that match, the newest in an order first.

    A page may have fewer than `limit` operations and still have a next one. Raises `InvalidInput` for a bad cursor.
    """
    mark = read_cursor(cursor, order) if cursor else None
    scan = _Scan(store, in_order(filters, order), order, limit)
    found, mark = await scan.page(mark)
    operations = await rolled_up(store.rollups, found)
    return Page(operations, None if mark is None else write_cursor(mark, order), sorted(scan.lanes.away))


class _Lane:
    """What is known of the next operations of a lane."""

    def __init__(self, number: int, place: Mark | None) -> None:
        self.number = number
        self.place = place
        """How far the lane is known: the last operation that was looked at."""
        self.at_end = False
        self.marks: deque[Mark] = deque()
        """Operations up to there that were not taken yet."""

    def add(self, part: Part) -> None:
        """Add what follows."""
        self.marks += part.marks
        self.place, self.at_end = part.place or self.place, part.at_end


class _Scan:
    """The reads for one page."""

    def __init__(self, store: Store, filters: Filters, order: Order, limit: int) -> None:
        self.lanes = store.fan_out()
        self._store, self._filters, self._limit = store, filters, limit
        self._choice: Choice = choose(filters, store.keyspace)
        self._options = ["DOWN", *(["CREATION"] if order is Order.CREATED else [])]
        self._most = 1 + 2 * limit // store.keyspace.lanes
        self._look = min(_LOOKED_IN_LANE, max(10, _LOOKED_AT_ONCE // store.keyspace.lanes))
        self._looked = 0

    async def page(self, mark: Mark | None) -> tuple[list[Loaded], Mark | None]:
        """Return a page of operations after a place, and where the next page begins, or None at the end."""
        lanes = [_Lane(number, mark) for number in self._choice.lanes(range(self._store.keyspace.lanes))]
        found: list[Loaded] = []
        ready: deque[Mark] = deque()
        loaded = 0
        while True:
            while not ready:
                if all(lane.at_end for lane in lanes):
                    return found, None
                if self._looked >= _LOOKED:
                    return found, mark
                lanes = await self._read_on(lanes)
                ready = _taken(lanes)
                if not ready:
                    mark = _known(lanes) or mark
            some = [ready.popleft() for _ in range(min(len(ready), self._limit - len(found), _LOADED_AT_ONCE))]
            for at, it in zip(some, await self._load(some), strict=True):
                mark = at
                if it is not None and self._filters.match(it[0]):
                    found.append(it)
            loaded += len(some)
            if len(found) >= self._limit or loaded >= _LOADED:
                return found, mark if ready or not all(lane.at_end for lane in lanes) else None
            if not ready:
                mark = _known(lanes) or mark

    async def _load(self, marks: Sequence[Mark]) -> list[Loaded | None]:
        ids = [id for _, id in marks]
        return await load_each(self._store.connections, self._store.keyspace, self.lanes, ids)

    async def _read_on(self, lanes: Sequence[_Lane]) -> list[_Lane]:
        """Read the next parts of the lanes of which little is left, and return the lanes that answer."""
        due = {lane.number: lane for lane in lanes if not lane.at_end and len(lane.marks) <= self._most // 2}
        keyspace, scripts = self._store.keyspace, self._store.connections.scripts

        async def read(numbers: Sequence[int]) -> list[Part]:
            calls = [
                walk_call(
                    keyspace.lane(number),
                    self._most,
                    self._look,
                    [*self._options, *after(due[number].place), *self._choice.arguments(number)],
                )
                for number in numbers
            ]
            return [read_part(reply) for reply in await scripts.run_all(calls)]

        for number, part in (await self.lanes.ask(read, due)).items():
            due[number].add(part)
            self._looked += part.looked
        return [lane for lane in lanes if lane.number not in self.lanes.away]


def _known(lanes: Sequence[_Lane]) -> Mark | None:
    """Return how far all lanes are known; None if they are known to their ends."""
    return max((lane.place for lane in lanes if not lane.at_end and lane.place is not None), default=None)


def _taken(lanes: Sequence[_Lane]) -> deque[Mark]:
    """Take the operations up to where all lanes are known, the newest first."""
    known, taken = _known(lanes), list[Mark]()
    for lane in lanes:
        while lane.marks and (known is None or lane.marks[0] >= known):
            taken.append(lane.marks.popleft())
    return deque(sorted(taken, reverse=True))
