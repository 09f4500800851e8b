"""Counts of the operations that match a query, by status."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from progress_broker.model.operation import Status
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.queries.choice import choose
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.storage.foreign import readable
from progress_broker.storage.scripts import COUNT

_LOOKED = 4_000
"""Operations that scripts look at for a count, in all lanes together, about. Of more, only a part is looked at."""
_LOOKED_IN_LANE = 250
_PAGES = 5
_PAGE = 200


class Counts(NamedTuple):
    """How many operations match."""

    statuses: dict[Status, int]
    """By status; without those of which there is none."""
    approximate: bool
    """Whether the counts are estimated. For a caller that may not read all operations they are then of those that
    changed last, so there are more."""
    lanes_away: Sequence[int]
    """The lanes that could not be reached. What they have is missing."""

    @property
    def total(self) -> int:
        """Return the sum."""
        return sum(self.statuses.values())


async def count(store: Store, filters: Filters) -> Counts:
    """Return how many operations match, by status.

    Numbers of operations that the caller may not read have no part in it, not even in an estimate.
    """
    if filters.grants is not None:
        return await _of_pages(store, filters)
    if replace(filters, statuses=frozenset()) == Filters(action=filters.action):
        return await _of_statuses(store, filters.statuses or frozenset(Status))
    return await _of_scripts(store, filters)


async def _of_statuses(store: Store, statuses: frozenset[Status]) -> Counts:
    """Return the sizes of the indexes of statuses."""
    lanes, chosen = store.fan_out(), sorted(statuses)

    async def read(some: Sequence[int]) -> list[Counter[Status]]:
        async with store.connections.commands.pipeline(transaction=False) as pipeline:
            for lane in map(store.keyspace.lane, some):
                for status in chosen:
                    pipeline.zcard(lane.index_of("status", status.value))
            with storage_errors():
                sizes = iter(readable(await pipeline.execute(raise_on_error=False)))
        return [Counter({status: next(sizes) or 0 for status in chosen}) for _ in some]

    return _summed((await lanes.ask(read)).values(), lanes.away, approximate=False)


async def _of_scripts(store: Store, filters: Filters) -> Counts:
    """Return what scripts count. Of some operations they can't say whether they have a text, and count them."""
    lanes, choice = store.fan_out(), choose(filters, store.keyspace)
    look = str(max(10, min(_LOOKED_IN_LANE, _LOOKED // store.keyspace.lanes)))

    async def read(some: Sequence[int]) -> list[tuple[bool, Counter[Status]]]:
        named = [(number, store.keyspace.lane(number)) for number in some]
        calls = [Call(COUNT, (lane.index,), (lane.operations, look, *choice.arguments(it))) for it, lane in named]
        replies = await store.connections.scripts.run_all(calls)
        return [(step == 1 and undecided == 0, _read(step, found)) for step, undecided, *found in replies]

    found = (await lanes.ask(read, choice.lanes(range(store.keyspace.lanes)))).values()
    return _summed([numbers for _, numbers in found], lanes.away, approximate=not all(exact for exact, _ in found))


def _read(step: int, found: Sequence[Any]) -> Counter[Status]:
    known = {status.value.encode(): status for status in Status}
    pairs = zip(found[::2], found[1::2], strict=True)
    return Counter({known[name]: step * number for name, number in pairs if name in known})


async def _of_pages(store: Store, filters: Filters) -> Counts:
    """Return the counts of the operations that a caller may read, looking at no more than some pages."""
    numbers, away, cursor = Counter[Status](), set[int](), None
    for _ in range(_PAGES):
        page = await find_page(store, filters, limit=_PAGE, cursor=cursor)
        numbers.update(operation.status for operation in page.operations)
        away.update(page.lanes_away)
        cursor = page.next_cursor
        if cursor is None:
            break
    return _summed([numbers], away, approximate=cursor is not None)


def _summed(numbers: Iterable[Counter[Status]], away: Iterable[int], *, approximate: bool) -> Counts:
    total = sum(numbers, Counter[Status]())  # leaves out zeros
    return Counts({status: total[status] for status in Status if total[status]}, approximate, sorted(away))
