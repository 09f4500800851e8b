"""Lists operations, last changed first, by merging the lanes' indexes. Cursors stay valid if operations change.

The index of the filter with the fewest operations is scanned. The other filters are applied to the snapshots.
"""

import base64
import binascii
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

from progress_broker.errors import Gone, InvalidInput, NotFound
from progress_broker.model.grants import Action, Grants
from progress_broker.model.metadata import FIELD, indexed
from progress_broker.model.operation import Operation, Status, is_id
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.rollup import Rollups
from progress_broker.operations.snapshot import FIELDS, attributes_of, has_children, read_snapshot
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import Keyspace, LaneKeys
from progress_broker.storage.lanes import FanOut

_WALK = 500
"""Maximum operations scanned for one page. With a filter that rarely matches, the page is short and has a cursor, and
the server stays fast."""
_AT_ONCE = 200
"""Maximum operations scanned at once. The first scan is for as many as are wanted, each other one for twice as many."""
_READS = 3_000
"""Maximum reads of indexes for one page, about."""
_LATEST = (1 << 53) - 1
"""The latest valid time. Index entries of other programs with a later time are ignored."""
_SOURCES = 64
"""Maximum indexes merged for a caller that may not read every operation. If its grants name more indexes, or none, the
filters select what is scanned."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a listing; None means no filter."""

    status: Status | tuple[Status, ...] | None = None
    """One of several statuses must match."""
    owner: str | None = None
    kind: str | None = None
    tag: str | tuple[str, ...] | None = None
    """All of several tags must match."""
    parent: str | None = None
    metadata: tuple[str, ...] = ()
    """All of several values of metadata must match, each as `key=value`."""
    grants: Grants | None = None
    """The caller's grants: they must allow reading the operation."""

    def chosen(self) -> list[list["IndexKey"]]:
        """Return the possible scans: each is a list of indexes that together have every matching operation."""
        found = [[("tag", tag)] for tag in _each(self.tag)]
        found += [[(FIELD, pair)] for pair in self.metadata]
        pairs = (("owner", self.owner), ("parent", self.parent), ("kind", self.kind))
        found += [[(field, value)] for field, value in pairs if value is not None]
        statuses = [("status", status.value) for status in _each(self.status)]
        return [*found, statuses] if statuses else found

    def match(self, operation: Operation) -> bool:
        """Return whether an operation matches all filters."""
        statuses = _each(self.status)
        return (
            (not statuses or operation.status in statuses)
            and self.owner in (None, operation.owner)
            and self.kind in (None, operation.kind)
            and self.parent in (None, operation.parent)
            and all(tag in operation.tags for tag in _each(self.tag))
            and (not self.metadata or set(self.metadata) <= set(indexed(operation.metadata)))
            and (self.grants is None or self.grants.allows(Action.READ, attributes_of(operation)))
        )


T = TypeVar("T")


def _each(wanted: T | tuple[T, ...] | None) -> tuple[T, ...]:
    return wanted if isinstance(wanted, tuple) else () if wanted is None else (wanted,)


_BYTES = ("utf-8", "surrogateescape")
"""Encoding of index members. They are ids, unless another program added something else."""


Mark = tuple[int, str]
"""A position in a listing: the time of the last change, and the id, for operations of the same millisecond."""

IndexKey = tuple[str, str]
"""An index, as field and value, or a single operation, as `id` and its id."""
WHOLE: IndexKey = ("", "")

Loaded = tuple[Operation, bool]
"""An operation, and whether it has children."""


def _read_cursor(cursor: str) -> Mark:
    try:
        score, _, operation = base64.urlsafe_b64decode(cursor.encode()).decode(*_BYTES).partition(" ")
        mark = int(score), operation
        if not 0 <= mark[0] <= _LATEST:
            raise ValueError("the time is out of range")
        return mark
    except (binascii.Error, ValueError):
        raise InvalidInput(
            "invalid cursor: send the `next_cursor` of the previous page, unchanged", field="cursor"
        ) from None


def _write_cursor(mark: Mark) -> str:
    return base64.urlsafe_b64encode(f"{mark[0]} {mark[1]}".encode(*_BYTES)).decode()


class Page(NamedTuple):
    """A page of operations."""

    operations: list[Operation]
    next_cursor: str | None
    """The cursor of the next page, or None at the end."""
    lanes_away: Sequence[int]
    """The lanes that could not be reached. What they have is missing."""


async def page(
    connections: Connections, keyspace: Keyspace, rollups: Rollups, filters: Filters, limit: int, cursor: str | None
) -> Page:
    """Return a page of operations."""
    scan = _Scan(connections, keyspace)
    found, cursor = await scan.page(filters, limit, cursor)
    return Page(await _rolled_up(rollups, found), cursor, sorted(scan.away))


async def load(
    connections: Connections, keyspace: Keyspace, rollups: Rollups, operations: Sequence[str]
) -> list[Operation]:
    """Return those of these operations that exist, and whose lanes can be reached."""
    loaded = await _Scan(connections, keyspace).load(operations)
    return await _rolled_up(rollups, [it for it in loaded if it is not None])


async def _rolled_up(rollups: Rollups, found: Sequence[Loaded]) -> list[Operation]:
    await rollups.fill([operation for operation, has_children in found if has_children])
    return [operation for operation, _ in found]


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

    def __init__(self, connections: Connections, keyspace: Keyspace) -> None:
        self._connections, self._keyspace = connections, keyspace
        self._lanes = FanOut(connections, keyspace)

    @property
    def away(self) -> Iterable[int]:
        """The lanes that could not be reached."""
        return self._lanes.away

    async def page(self, filters: Filters, limit: int, cursor: str | None) -> tuple[list[Loaded], str | None]:
        """Return a page of operations, and the next page's cursor or None."""
        mark = _read_cursor(cursor) if cursor else None
        sources = await self._sources(filters)
        indexes = self._keyspace.lanes * sum(field != "id" for field, _ in sources)
        found: list[Loaded] = []
        walked = reads = 0
        at_once, at_end = min(limit, _AT_ONCE), False
        while not at_end and walked < _WALK and reads < _READS:
            marks, at_end = await self._walk(sources, indexes, mark, min(at_once, _WALK - walked))
            loaded = await self.load([operation for _, operation in marks])
            for mark, it in zip(marks, loaded, strict=True):
                if it is not None and filters.match(it[0]):
                    found.append(it)
                    if len(found) == limit:
                        return found, _write_cursor(mark)
            walked, reads, at_once = walked + len(marks), reads + 2 * indexes, min(2 * at_once, _AT_ONCE)
        return found, _write_cursor(mark) if mark and not at_end else None

    async def load(self, operations: Sequence[str]) -> list[Loaded | None]:
        """Return operations; None for each that does not exist, or whose lane can't be reached."""
        by_lane = self._by_lane(operation for operation in operations if is_id(operation))

        async def load(lanes: Sequence[int]) -> list[dict[str, Any]]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for lane in lanes:
                    for operation in by_lane[lane]:
                        pipeline.hmget(self._keyspace.operation_in(lane, operation).snapshot, FIELDS)
                with storage_errors():
                    replies = iter(readable(await pipeline.execute(raise_on_error=False)))
            return [dict(zip(by_lane[lane], replies, strict=False)) for lane in lanes]

        found = ChainMap(*(await self._lanes.ask(load, by_lane)).values())
        return [_snapshot(operation, found.get(operation)) for operation in operations]

    async def _sources(self, filters: Filters) -> Sequence[IndexKey]:
        """Return the indexes to scan: those that the grants name, so that only readable operations are scanned, else
        those of the filter with the fewest operations."""
        named = None if filters.grants is None else filters.grants.sources(Action.READ)
        if named is not None and len(named) <= _SOURCES:
            return sorted(named)
        return await self._rarest(filters)

    async def _rarest(self, filters: Filters) -> list[IndexKey]:
        chosen = filters.chosen()
        if len(chosen) < 2:
            return chosen[0] if chosen else [WHOLE]

        async def sizes(lanes: Sequence[int]) -> list[list[int]]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for lane in map(self._keyspace.lane, lanes):
                    for field, value in chain(*chosen):
                        pipeline.zcard(_index(lane, field, value))
                with storage_errors():
                    cards = iter([card or 0 for card in readable(await pipeline.execute(raise_on_error=False))])
            return [[sum(islice(cards, len(sources))) for sources in chosen] for _ in lanes]

        totals = [sum(of_lanes) for of_lanes in zip(*(await self._lanes.ask(sizes)).values(), strict=True)]
        return chosen[totals.index(min(totals))]

    async def _walk(
        self, sources: Sequence[IndexKey], indexes: int, mark: Mark | None, limit: int
    ) -> tuple[list[Mark], bool]:
        """Return at most `limit` next marks after a mark, over all lanes, and whether these are the last ones.

        Of each index only its part of them is read, so there may be fewer, but at least one if there is any.
        """
        part = 1 + 2 * limit // max(1, indexes)
        named = self._by_lane(value for field, value in sources if field == "id")
        listed = [(field, value) for field, value in sources if field != "id"]
        lanes = None if listed else named
        replies = await self._lanes.ask(lambda some: self._read(some, named, listed, mark, part), lanes)
        rest = [marks for reply in replies.values() for marks in reply.later]
        known_from = max((marks[-1] for marks in rest if len(marks) >= part), default=None)  # others may follow later
        places = set(chain(*rest, *(marks for reply in replies.values() for marks in reply.same)))
        scores = ((score, id) for reply in replies.values() for id, score in reply.scores if score is not None)
        places |= {(int(score), id) for score, id in scores if 0 <= score <= _LATEST}
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
        top = _LATEST if mark is None else f"({mark[0]}"
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

    def _by_lane(self, operations: Iterable[str]) -> dict[int, list[str]]:
        by_lane: dict[int, list[str]] = {}
        for operation in operations:
            by_lane.setdefault(self._keyspace.lane_of(operation), []).append(operation)
        return by_lane


def _marks(reply: Sequence[tuple[bytes, float]] | None) -> list[Mark]:
    return [(int(score), member.decode(*_BYTES)) for member, score in reply or ()]


def _index(lane: LaneKeys, field: str, value: str) -> str:
    return lane.index_of(field, value) if field else lane.index


def _snapshot(operation: str, values: list[bytes | None] | None) -> Loaded | None:
    if values is None:
        return None
    try:
        return read_snapshot(operation, values), has_children(values)
    except (NotFound, Gone):
        return None  # its index entry will be removed soon
