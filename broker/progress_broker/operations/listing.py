"""Listing operations: the lanes' indexes merged, newest change first; the cursor survives changes between pages.

One index narrows the walk, that of the rarest filter; the other filters are applied to the snapshots it leads to.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from progress_broker.errors import Gone, Invalid, NotFound
from progress_broker.model.grants import Action, Grants
from progress_broker.model.operation import Operation, Status, is_id
from progress_broker.operations import rollup
from progress_broker.operations.snapshot import FIELDS, facts_of, is_parent, read_snapshot
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.redis_errors import storage_errors

_WALK = 2_000
"""Operations looked at for one page, at most: a rare filter then gives a short page and a cursor, not a slow server."""
_LATEST = (1 << 53) - 1
"""No time is later; what another program listed so would stand before all operations."""
_SOURCES = 64
"""Indexes merged for who may not read all, at most: of more, or where grants name none, the whole is walked."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing is narrowed to; None does not narrow."""

    status: Status | tuple[Status, ...] | None = None
    """Of several, any."""
    owner: str | None = None
    kind: str | None = None
    tag: str | tuple[str, ...] | None = None
    """Of several, all."""
    parent: str | None = None
    grants: Grants | None = None
    """Whose grants to read an operation it takes, too."""

    def chosen(self) -> list[list["Source"]]:
        """Return the ways to narrow: indexes that hold, together, all that passes."""
        found = [[("tag", tag)] for tag in _each(self.tag)]
        pairs = (("owner", self.owner), ("parent", self.parent), ("kind", self.kind))
        found += [[(field, value)] for field, value in pairs if value is not None]
        statuses = [("status", status.value) for status in _each(self.status)]
        return [*found, statuses] if statuses else found

    def match(self, operation: Operation) -> bool:
        """Return whether an operation passes."""
        statuses = _each(self.status)
        return (
            (not statuses or operation.status in statuses)
            and self.owner in (None, operation.owner)
            and self.kind in (None, operation.kind)
            and self.parent in (None, operation.parent)
            and all(tag in operation.tags for tag in _each(self.tag))
            and (self.grants is None or self.grants.allows(Action.READ, facts_of(operation)))
        )


T = TypeVar("T")


def _each(wanted: T | tuple[T, ...] | None) -> tuple[T, ...]:
    return wanted if isinstance(wanted, tuple) else () if wanted is None else (wanted,)


_BYTES = ("utf-8", "surrogateescape")
"""Members of an index are ids, unless another program listed something else."""


Mark = tuple[int, str]
"""A place in a listing: the time of last change, and the id among those of the same millisecond."""

Source = tuple[str, str]
"""An index by its field and value, or an operation by its id."""
WHOLE: Source = ("", "")

Loaded = tuple[Operation, bool]
"""An operation, and whether it has children."""


def _read_cursor(cursor: str) -> Mark:
    try:
        score, _, operation = base64.urlsafe_b64decode(cursor.encode()).decode(*_BYTES).partition(" ")
        mark = int(score), operation
        if not 0 <= mark[0] <= _LATEST:
            raise ValueError("no time is so late")
        return mark
    except (binascii.Error, ValueError):
        raise Invalid("invalid cursor: send `next_cursor` of the page before, unchanged", field="cursor") from None


def _write_cursor(mark: Mark) -> str:
    return base64.urlsafe_b64encode(f"{mark[0]} {mark[1]}".encode(*_BYTES)).decode()


async def page(
    client: Any, keyspace: Keyspace, filters: Filters, limit: int, cursor: str | None
) -> tuple[list[Operation], str | None]:
    """Return a page of operations and the next page's cursor, or None when there is no more."""
    found, cursor = await _page(client, keyspace, filters, limit, cursor)
    return await _rolled_up(client, keyspace, found), cursor


async def load(client: Any, keyspace: Keyspace, operations: Sequence[str]) -> list[Operation]:
    """Return those of some operations that there are."""
    loaded = await _load(client, keyspace, operations)
    return await _rolled_up(client, keyspace, [it for it in loaded if it is not None])


async def _rolled_up(client: Any, keyspace: Keyspace, found: Sequence[Loaded]) -> list[Operation]:
    await rollup.fill(client, keyspace, [operation for operation, has_children in found if has_children])
    return [operation for operation, _ in found]


async def _page(
    client: Any, keyspace: Keyspace, filters: Filters, limit: int, cursor: str | None
) -> tuple[list[Loaded], str | None]:
    mark = _read_cursor(cursor) if cursor else None
    sources = await _sources(client, keyspace, filters)
    found: list[Loaded] = []
    walked = 0
    while walked < _WALK:
        marks = await _walk(client, keyspace, sources, mark, limit)
        loaded = await _load(client, keyspace, [operation for _, operation in marks])
        for mark, it in zip(marks, loaded, strict=True):
            if it is not None and filters.match(it[0]):
                found.append(it)
                if len(found) == limit:
                    return found, _write_cursor(mark)
        if len(marks) < limit:
            return found, None
        walked += len(marks)
    return found, _write_cursor(mark) if mark else None


async def _sources(client: Any, keyspace: Keyspace, filters: Filters) -> Sequence[Source]:
    """Return where to look: in what grants name, so that nothing is walked that may not be read, or in the rarest."""
    named = None if filters.grants is None else filters.grants.sources(Action.READ)
    if named is not None and len(named) <= _SOURCES:
        return sorted(named)
    return await _rarest(client, keyspace, filters)


async def _rarest(client: Any, keyspace: Keyspace, filters: Filters) -> list[Source]:
    chosen = filters.chosen()
    if len(chosen) < 2:
        return chosen[0] if chosen else [WHOLE]
    async with client.pipeline(transaction=False) as pipeline:
        for key in (key for sources in chosen for key in _indexes(keyspace, sources)):
            pipeline.zcard(key)
        with storage_errors():
            cards = iter([card or 0 for card in readable(await pipeline.execute(raise_on_error=False))])
    sizes = [sum(islice(cards, len(sources) * keyspace.lanes)) for sources in chosen]
    return chosen[sizes.index(min(sizes))]


async def _walk(
    client: Any, keyspace: Keyspace, sources: Sequence[Source], mark: Mark | None, limit: int
) -> list[Mark]:
    """Return the next `limit` places after a mark, over all lanes; fewer mean that there are no more."""
    ids = [value for field, value in sources if field == "id"]
    async with client.pipeline(transaction=False) as pipeline:
        for id in ids:
            pipeline.zscore(keyspace.operation(id).lane.index, id)
        for key in _indexes(keyspace, sources):
            if mark is not None:  # those of the mark's own millisecond may stand on both sides of it
                pipeline.zrevrangebyscore(key, mark[0], mark[0], withscores=True)
            top = _LATEST if mark is None else f"({mark[0]}"
            pipeline.zrevrangebyscore(key, top, 0, start=0, num=limit, withscores=True)
        with storage_errors():
            replies = readable(await pipeline.execute(raise_on_error=False))
    places = {(int(score), member.decode(*_BYTES)) for reply in replies[len(ids) :] for member, score in reply or ()}
    scores = [(score, id) for id, score in zip(ids, replies, strict=False) if score is not None]
    places |= {(int(score), id) for score, id in scores if 0 <= score <= _LATEST}
    return sorted((place for place in places if mark is None or place < mark), reverse=True)[:limit]


def _indexes(keyspace: Keyspace, sources: Sequence[Source]) -> Iterator[str]:
    for field, value in sources:
        if field != "id":
            for lane in map(keyspace.lane, range(keyspace.lanes)):
                yield lane.index_of(field, value) if field else lane.index


async def _load(client: Any, keyspace: Keyspace, operations: Sequence[str]) -> list[Loaded | None]:
    ids = [operation for operation in operations if is_id(operation)]
    async with client.pipeline(transaction=False) as pipeline:
        for operation in ids:
            pipeline.hmget(keyspace.operation(operation).snapshot, FIELDS)
        with storage_errors():
            replies = readable(await pipeline.execute(raise_on_error=False))
    found = dict(zip(ids, replies, strict=True))
    return [_snapshot(operation, found.get(operation)) for operation in operations]


def _snapshot(operation: str, values: list[bytes | None] | None) -> Loaded | None:
    if values is None:
        return None
    try:
        return read_snapshot(operation, values), is_parent(values)
    except (NotFound, Gone):
        return None  # its index entry is about to be swept
