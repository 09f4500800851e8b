"""Finding operations to follow: those of some ids, or those that are listed in some indexes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from progress_broker.model.event import Event, read_events
from progress_broker.model.operation import TERMINAL, Operation, Status, is_id
from progress_broker.model.positions import is_canonical, order
from progress_broker.operations.snapshot import FIELDS, read_snapshot
from progress_broker.operations.store import Store
from progress_broker.storage.redis_errors import storage_errors
from progress_broker.storage.run import run
from progress_broker.storage.scripts import FIND, Call

_FIELDS = ("status", "position", "first", "created", "indexes", "gone")
_OF_CREATION = ("gone", "spec", "created")
_STATUSES = frozenset(status.value.encode() for status in Status)
_ENDS = frozenset(status.value.encode() for status in TERMINAL)
_ASKED_AT_ONCE = 500

Terms = frozenset[bytes]
"""Indexes that operations are listed in, `field:value` each; their values never change."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether and from where an operation is followed."""

    operation: str
    terms: Terms
    done: bool
    position: bytes
    """That of its last event."""
    first: bytes
    """That of its first event."""

    def labels(self, field: str) -> list[str]:
        """Return what it is listed under by an index, such as `owner` or `tag`."""
        prefix = f"{field}:".encode()
        return [term[len(prefix) :].decode("utf-8", "replace") for term in self.terms if term.startswith(prefix)]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of the operations that somebody wants to follow."""

    facts: Sequence[Facts]
    gone: Mapping[str, Facts] = field(default_factory=dict)
    """Deleted ones by their ids, with what is still known of them: only who might follow them is told so."""


def read_terms(lines: bytes) -> Terms:
    """Return the indexes that are told one a line."""
    return frozenset(line for line in lines.split(b"\n") if line)


async def by_ids(store: Store, ids: Iterable[str]) -> Found:
    """Return what there is of these operations."""
    facts: list[Facts] = []
    gone: dict[str, Facts] = {}
    asked = list(ids)
    for at in range(0, len(asked), _ASKED_AT_ONCE):
        some = asked[at : at + _ASKED_AT_ONCE]
        async with store.connections.commands.pipeline(transaction=False) as pipeline:
            for operation in some:
                pipeline.hmget(store.keyspace.operation(operation).snapshot, _FIELDS)
            with storage_errors():
                states = await pipeline.execute(raise_on_error=False)
        for operation, state in zip(some, states, strict=True):
            read = _read(operation, state)
            if read is not None:
                facts.append(read)
            elif isinstance(state, list) and state[-1] is not None:
                gone[operation] = Facts(operation, read_terms(state[-2] or b""), True, b"0-0", b"0-0")
    return Found(facts, gone)


async def by_terms(store: Store, terms: Terms, since: Mapping[int, bytes], lanes: Iterable[int], most: int) -> Found:
    """Return those operations of some lanes that are listed in all these indexes, `most` a lane.

    Those that have ended are told if that was after the lane's position in `since`.
    """
    found = await asyncio.gather(*(_in_lane(store, lane, terms, since.get(lane), most) for lane in lanes))
    return Found([facts for some in found for facts in some])


async def within(
    store: Store, terms: Terms, places: Terms, since: Mapping[int, bytes], lanes: Iterable[int], most: int
) -> Found:
    """Return what `by_terms` does of those in one of some places: what is elsewhere takes no room from them."""
    mine = set(lanes)
    ids = [place.removeprefix(b"id:").decode() for place in places if place.startswith(b"id:")]
    named = (await by_ids(store, [id for id in ids if store.keyspace.lane_of(id) in mine])).facts
    found = {facts.operation: facts for facts in named if terms <= facts.terms}
    for place in places:
        if not place.startswith(b"id:"):
            listed = (await by_terms(store, terms | {place}, since, mine, most)).facts
            found |= {facts.operation: facts for facts in listed}
    return Found(list(found.values()))


async def _in_lane(store: Store, lane: int, terms: Terms, since: bytes | None, most: int) -> list[Facts]:
    keys = store.keyspace.lane(lane)
    begins = since.partition(b"-")[0] if since else b""
    call = Call(FIND, (keys.index,), (keys.operations, str(most), begins, *sorted(terms)))
    reply = iter(await run(store.connections.commands, call))
    named = [(name.decode("utf-8", "replace"), state) for name, state in zip(reply, reply, strict=True)]
    read = [_read(operation, state) for operation, state in named if is_id(operation)]
    return [facts for facts in read if facts is not None]


async def as_created(store: Store, operation: str) -> Operation | None:
    """Return an operation as it was after its first event, None if it is not known where that is.

    Raises `NotFound` or `Gone`.
    """
    with storage_errors():
        first, *values = await store.connections.commands.hmget(
            store.keyspace.operation(operation).snapshot, ("first", *_OF_CREATION)
        )
    known = dict(zip(_OF_CREATION, values, strict=True))
    known |= {"status": Status.PENDING.value.encode(), "n": b"1", "position": first or b"0-0"}
    created = read_snapshot(operation, [known.get(field) for field in FIELDS])
    return created if first else None


@dataclass(frozen=True, slots=True)
class Beyond:
    """What an operation's log holds after a position that need not be one of its own."""

    events: Sequence[Event]
    last: Event | None
    """The last event of all, if there is one."""
    trimmed: bool
    """Whether events may no longer be kept."""


async def beyond(store: Store, operation: str, position: bytes, count: int, since: bytes) -> Beyond:
    """Return what follows a position of an operation's lane in its log, `count` events at most.

    It is `trimmed` if events after `since` may no longer be kept, which is the position or an older one.
    """
    key = store.keyspace.operation(operation).log
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        pipeline.xrevrange(key, count=1)
        pipeline.xrange(key, min=b"(" + position, count=count)
        pipeline.xrange(key, count=1)
        with storage_errors():
            last, after, oldest = [read_events(operation, entries) for entries in await pipeline.execute()]
    trimmed = bool(oldest) and oldest[0].n > 1 and order(oldest[0].position) > order(since)
    return Beyond(after, last[0] if last else None, trimmed)


async def up_to(store: Store, places: Mapping[int, bytes]) -> list[tuple[bytes | None, int]]:
    """Return where the last entry up to a position stands in each of some lanes' feeds, if there is one, and how many
    entries the feed has."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for lane, position in places.items():
            feed = store.keyspace.lane(lane).feed
            pipeline.xrevrange(feed, max=position, count=1).xlen(feed)
        with storage_errors():
            replies = iter(await pipeline.execute())
    return [(entries[0][0] if entries else None, length) for entries, length in zip(replies, replies, strict=True)]


def _read(operation: str, state: Any) -> Facts | None:
    if not isinstance(state, list):
        return None
    status, position, first, created, indexes, gone = state
    if gone is not None or status not in _STATUSES or not is_canonical(position or b""):
        return None
    first = first or b"%b-0" % (created or b"0")  # one that was created before this was kept
    return Facts(
        operation, read_terms(indexes or b""), status in _ENDS, position, first if is_canonical(first) else position
    )
