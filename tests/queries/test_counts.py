"""Counts are what lists would find; of many operations, an estimate."""

from collections import Counter

from hypothesis import strategies as st

from progress_broker.model.operation import Status
from progress_broker.operations.store import Store
from progress_broker.queries.counts import count
from progress_broker.queries.filters import Filters, Span
from tests.broker.costs import measured
from tests.broker.test_costs import many_running
from tests.keyspace import flush_all
from tests.queries.examples import all_of, fill, filters, holds


async def test_counts_are_what_matches(store: Store) -> None:
    await fill(store)
    operations = await all_of(store)

    async def check(given: Filters) -> None:
        matching = Counter(it.status for it in operations if given.match(it))
        found = await count(store, given)
        if found.approximate:
            assert given.text or given.error or given.metadata
            assert found.total >= matching.total()
        else:
            assert found.statuses == matching

    await check(Filters(ended=Span(0), statuses=frozenset({Status.PENDING})))
    await holds(check, filters(operations), examples=80)
    await holds(check, st.builds(Filters, statuses=st.frozensets(st.sampled_from(Status))), examples=10)


async def test_of_many_a_part_is_looked_at(store: Store) -> None:
    await many_running(store, 40_000, ("kind:job", "owner:ann"))
    redis = store.connections.commands
    for i in range(0, 40_000, 4):
        await redis.zadd(store.keyspace.operation(f"o{i}").lane.index_of("tag", "t"), {f"o{i}": 1795000000000 + i // 3})
    every = await count(store, Filters())
    assert (every.total, every.approximate) == (40_000, False)
    for given in (Filters(kinds=("job",), roots=True), Filters(kinds=("job",), owners=("ann",))):
        async with measured(redis) as cost:
            found = await count(store, given)
        assert found.approximate
        assert 0.98 < found.total / 40_000 < 1.1
        assert cost.commands / cost.scripts < 1_000
        assert cost.scripts <= 2 * store.keyspace.lanes
    await flush_all(store.connections)
