"""Pages of operations, last changed first, by merging the lanes' indexes. Cursors stay valid if operations change.

The index of the filter with the fewest operations is scanned. The other filters are applied to the snapshots.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from progress_broker.model.operation import Operation
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.loading import Loaded, by_lane, load_each, rolled_up
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters, Group, IndexKey
from progress_broker.queries.list_cursor import LATEST, MEMBERS, Mark, read_cursor, write_cursor
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import LaneKeys

_WALK = 500
"""Maximum operations scanned for one page. With a filter that rarely matches, the page is short and has a cursor, and
the server stays fast."""
_AT_ONCE = 200
"""Maximum operations scanned at once. The first scan is for as many as are wanted, each other one for twice as many."""
_READS = 3_000
"""Maximum reads of indexes for one page, about."""
_SOURCES = 64
"""Maximum indexes merged for a caller that may not read every operation. If its grants name more indexes, or none, the
filters select what is scanned."""

_WHOLE: IndexKey = ("", "")


class Page(NamedTuple):
    """A page of operations."""

    operations: list[Operation]
    next_cursor: str | None
    """The cursor of the next page, or None at the end."""
    lanes_away: Sequence[int]
    """The lanes that could not be reached. What they have is missing."""


async def find_page(store: Store, filters: Filters, *, limit: int = 50, cursor: str | None = None) -> Page:
    """Return a page of the operations that match, last changed first.

    A page may have fewer than `limit` operations and still have a next one. Raises `InvalidInput` for a bad cursor.
    """
    scan = _Scan(store)
    found, cursor = await scan.page(filters, limit, cursor)
    return Page(await rolled_up(store.rollups, found), cursor, sorted(scan.away))


class _InLane(NamedTuple):
    """What a lane has of the next operations."""

    scores: Sequence[tuple[str, float | None]]
    """Times of last change of single operations."""
    same: Sequence[Sequence[Mark]]
    """Operations of the same millisecond as the mark, by index."""
    later: Sequence[Sequence[Mark]]
    """Operations after that, by index."""


class _Scan:
    """Reads of one caller from all lanes."""

    def __init__(self, store: Store) -> None:
        self._connections, self._keyspace = store.connections, store.keyspace
        self._lanes = store.fan_out()

    @property
    def away(self) -> Iterable[int]:
        """The lanes that could not be reached."""
        return self._lanes.away

    async def page(self, filters: Filters, limit: int, cursor: str | None) -> tuple[list[Loaded], str | None]:
        """Return a page of operations, and the next page's cursor or None."""
        mark = read_cursor(cursor) if cursor else None
        sources = await self._sources(filters)
        indexes = self._keyspace.lanes * sum(field != "id" for field, _ in sources)
        found: list[Loaded] = []
        walked = reads = 0
        at_once, at_end = min(limit, _AT_ONCE), False
        while not at_end and walked < _WALK and reads < _READS:
            marks, at_end = await self._walk(sources, indexes, mark, min(at_once, _WALK - walked))
            ids = [operation for _, operation in marks]
            loaded = await load_each(self._connections, self._keyspace, self._lanes, ids)
            for mark, it in zip(marks, loaded, strict=True):
                if it is not None and filters.match(it[0]):
                    found.append(it)
                    if len(found) == limit:
                        return found, write_cursor(mark)
            walked, reads, at_once = walked + len(marks), reads + 2 * indexes, min(2 * at_once, _AT_ONCE)
        return found, write_cursor(mark) if mark and not at_end else None

    async def _sources(self, filters: Filters) -> Group:
        """Return the indexes to scan: those that the grants name, so that only readable operations are scanned, else
        those of the filter with the fewest operations."""
        if filters.ids:
            return [("id", id) for id in dict.fromkeys(filters.ids)]
        named = None if filters.grants is None else filters.grants.sources(filters.action)
        if named is not None and len(named) <= _SOURCES:
            return sorted(named)
        return await self._rarest(filters.groups())

    async def _rarest(self, groups: Sequence[Group]) -> Group:
        if len(groups) < 2:
            return groups[0] if groups else [_WHOLE]

        async def sizes(lanes: Sequence[int]) -> list[list[int]]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for lane in map(self._keyspace.lane, lanes):
                    for field, value in chain(*groups):
                        pipeline.zcard(_index(lane, field, value))
                with storage_errors():
                    cards = iter([card or 0 for card in readable(await pipeline.execute(raise_on_error=False))])
            return [[sum(islice(cards, len(group))) for group in groups] for _ in lanes]

        totals = [sum(of_lanes) for of_lanes in zip(*(await self._lanes.ask(sizes)).values(), strict=True)]
        return groups[totals.index(min(totals))]

    async def _walk(self, sources: Group, indexes: int, mark: Mark | None, limit: int) -> tuple[list[Mark], bool]:
        """Return at most `limit` next marks after a mark, over all lanes, and whether these are the last ones.

        Of each index only its part of them is read, so there may be fewer, but at least one if there is any.
        """
        part = 1 + 2 * limit // max(1, indexes)
        named = by_lane(self._keyspace, (value for field, value in sources if field == "id"))
        listed = [(field, value) for field, value in sources if field != "id"]
        lanes = None if listed else named
        replies = await self._lanes.ask(lambda some: self._read(some, named, listed, mark, part), lanes)
        rest = [marks for reply in replies.values() for marks in reply.later]
        known_from = max((marks[-1] for marks in rest if len(marks) >= part), default=None)  # others may follow later
        places = set(chain(*rest, *(marks for reply in replies.values() for marks in reply.same)))
        scores = ((score, id) for reply in replies.values() for id, score in reply.scores if score is not None)
        places |= {(int(score), id) for score, id in scores if 0 <= score <= LATEST}
        after = (place for place in places if mark is None or place < mark)
        marks = sorted((place for place in after if known_from is None or place >= known_from), reverse=True)
        return marks[:limit], known_from is None and len(marks) <= limit

    async def _read(
        self,
        lanes: Sequence[int],
        named: Mapping[int, Sequence[str]],
        listed: Sequence[IndexKey],
        mark: Mark | None,
        part: int,
    ) -> list[_InLane]:
        """Read the times of named operations, and the next part of indexes, in some lanes."""
        top = LATEST if mark is None else f"({mark[0]}"
        async with self._connections.commands.pipeline(transaction=False) as pipeline:
            for number in lanes:
                lane = self._keyspace.lane(number)
                for id in named.get(number, ()):
                    pipeline.zscore(lane.index, id)
                keys = [_index(lane, field, value) for field, value in listed]
                if mark is not None:  # operations of the same millisecond may be before or after it
                    for key in keys:
                        pipeline.zrevrangebyscore(key, mark[0], mark[0], withscores=True)
                for key in keys:
                    pipeline.zrevrangebyscore(key, top, 0, start=0, num=part, withscores=True)
            with storage_errors():
                replies = iter(readable(await pipeline.execute(raise_on_error=False)))
        same = 0 if mark is None else len(listed)
        return [
            _InLane(
                list(zip(named.get(number, ()), replies, strict=False)),
                [_marks(reply) for reply in islice(replies, same)],
                [_marks(reply) for reply in islice(replies, len(listed))],
            )
            for number in lanes
        ]


def _marks(reply: Sequence[tuple[bytes, float]] | None) -> list[Mark]:
    return [(int(score), member.decode(*MEMBERS)) for member, score in reply or ()]


def _index(lane: LaneKeys, field: str, value: str) -> str:
    return lane.index_of(field, value) if field else lane.index
