"""Finds operations to follow, by id or by index."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from progress_broker.model.index_terms import Found, IndexedOperation, IndexTerms, read_terms
from progress_broker.model.metadata import FIELD
from progress_broker.model.operation import TERMINAL, Operation, Status, is_id
from progress_broker.model.position import is_canonical
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.snapshot import FIELDS, read_snapshot
from progress_broker.operations.store import Store
from progress_broker.storage.scripts import FIND

_FIELDS = ("status", "position", "first_position", "created", "indexes", "gone")
_OF_CREATION = ("gone", "schema", "spec", "created", "created_metadata")
_STATUSES = frozenset(status.value.encode() for status in Status)
_ENDS = frozenset(status.value.encode() for status in TERMINAL)
_PER_PIPELINE = 500
_METADATA = f"{FIELD}:".encode()


async def by_ids(store: Store, ids: Iterable[str]) -> Found:
    """Return those of these operations that exist, and those that were deleted."""
    indexed: list[IndexedOperation] = []
    gone: dict[str, IndexedOperation] = {}
    wanted = list(ids)
    for at in range(0, len(wanted), _PER_PIPELINE):
        group = wanted[at : at + _PER_PIPELINE]
        async with store.connections.commands.pipeline(transaction=False) as pipeline:
            for operation in group:
                pipeline.hmget(store.keyspace.operation(operation).snapshot, _FIELDS)
            with storage_errors():
                states = await pipeline.execute(raise_on_error=False)
        for operation, state in zip(group, states, strict=True):
            read = _read(operation, state)
            if read is not None:
                indexed.append(read)
            elif isinstance(state, list) and state[-1] is not None:
                gone[operation] = IndexedOperation(operation, read_terms(state[-2] or b""), True, b"0-0", b"0-0")
    return Found(indexed, gone)


async def by_terms(
    store: Store, terms: IndexTerms, since: Mapping[int, bytes], lanes: Iterable[int], most: int
) -> Found:
    """Return the operations of some lanes that are listed in all these indexes; of more than `most`, only some.

    Operations that have ended are included if they ended after the lane's position in `since`.
    """
    found: dict[str, IndexedOperation] = {}
    await asyncio.gather(*(_in_lane(store, lane, terms, since.get(lane), most, found) for lane in lanes))
    return Found(list(found.values()))


async def within(
    store: Store, terms: IndexTerms, indexes: IndexTerms, since: Mapping[int, bytes], lanes: Iterable[int], most: int
) -> Found:
    """Like `by_terms`, but only operations in one of `places`. Other operations do not count for `most`."""
    mine = set(lanes)
    ids = [index.removeprefix(b"id:").decode() for index in indexes if index.startswith(b"id:")]
    named = (await by_ids(store, [id for id in ids if store.keyspace.lane_of(id) in mine])).operations
    found = {indexed.operation: indexed for indexed in named if terms <= indexed.terms}
    for index in indexes:
        if not index.startswith(b"id:"):
            listed = (await by_terms(store, terms | {index}, since, mine, most)).operations
            found |= {indexed.operation: indexed for indexed in listed}
    return Found(list(found.values()))


async def _in_lane(
    store: Store, lane: int, terms: IndexTerms, since: bytes | None, most: int, found: dict[str, IndexedOperation]
) -> None:
    """Add a lane's operations to those that were found, until there are more than `most` in all lanes."""
    keys = store.keyspace.lane(lane)
    args: list[str | bytes] = [keys.operations, str(most)]
    if since:
        args += ("ENDED_SINCE", since.partition(b"-")[0])
    for term in sorted(terms):
        args += ("INDEX", term)
    fixed = frozenset(term for term in terms if term.startswith(_METADATA))  # it is listed by changed metadata, too
    goes_on: Sequence[str | bytes] = ()
    while len(found) <= most:
        cursor, *told = await store.connections.scripts.run(Call(FIND, (keys.index,), (*args, *goes_on)))
        for name, state in zip(told[::2], told[1::2], strict=True):
            operation = name.decode("utf-8", "replace")
            indexed = _read(operation, state) if is_id(operation) else None
            if indexed is not None and fixed <= indexed.terms:
                found[operation] = indexed
        if not cursor:
            return
        goes_on = ("CURSOR", cursor)


async def as_created(store: Store, operation: str) -> Operation | None:
    """Return an operation's state after its first event, or None if that event's position is not known.

    Raises `NotFound` or `Gone`.
    """
    with storage_errors():
        first, *values = await store.connections.commands.hmget(
            store.keyspace.operation(operation).snapshot, ("first_position", *_OF_CREATION)
        )
    known = dict(zip(_OF_CREATION, values, strict=True))
    known |= {"status": Status.PENDING.value.encode(), "n": b"1", "position": first or b"0-0"}
    created = read_snapshot(operation, [known.get(field) for field in FIELDS])
    return created if first else None


def _read(operation: str, state: Any) -> IndexedOperation | None:
    if not isinstance(state, list):
        return None
    status, position, first, created, indexes, gone = state
    if gone is not None or status not in _STATUSES or not is_canonical(position or b""):
        return None
    first = first or b"%b-0" % (created or b"0")  # it was created by a version that did not store `first`
    return IndexedOperation(
        operation, read_terms(indexes or b""), status in _ENDS, position, first if is_canonical(first) else position
    )
