"""A walk tells each operation that is there all the time once, whatever happens to others meanwhile."""

from collections import Counter
from collections.abc import AsyncIterator
from itertools import count

import pytest
from hypothesis import strategies as st

from progress_broker.errors import InvalidInput
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations.commands import delete_call
from progress_broker.operations.store import Store
from progress_broker.queries import walk as walks
from progress_broker.queries.filters import Filters
from progress_broker.queries.walk import WalkPart, walk
from progress_broker.settings import Settings
from tests.broker.test_creation_order import by_older_scripts, created_by_older_scripts
from tests.conftest import make_settings
from tests.queries.examples import all_of, fill, filters, holds


@pytest.fixture
def settings() -> Settings:
    return make_settings(lanes=3)


async def told(parts: AsyncIterator[WalkPart]) -> list[str]:
    return [operation.id async for part in parts for operation in part.operations]


ACTIONS = ("new", "old", "delete", "delete-old", "end", "event", "repair")


async def test_each_that_is_there_all_the_time_is_told_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    number = count()

    async def act(action: str, which: int, there: dict[str, bool]) -> None:
        """Change something. `there` says of each operation whether it was there all the time."""
        id = sorted(there)[which % len(there)]
        match action:
            case "new":
                await store.create(NewOperation(id=f"o{next(number):04}", kind="k"))
            case "old":
                await created_by_older_scripts(store, f"o{next(number):04}")
            case "delete" if there[id]:
                there[id] = False
                await store.delete(id, force=True)
            case "delete-old" if there[id]:
                there[id] = False
                call = delete_call(id, store.keyspace.operation(id), force=True, settings=store.settings)
                await by_older_scripts(store, call)
            case "end" if there[id] and not (await store.get(id)).done:
                await store.publish(id, [encode("end", {"status": "failed"}, store.settings)])
            case "event" if there[id] and not (await store.get(id)).done:
                await store.publish(id, [encode("log", {"message": "m"}, store.settings)])
            case "repair":
                await store.upkeep.repair()

    async def check(older: list[bool], meanwhile: list[tuple[str, int]], part: int, kinds: tuple[str, ...]) -> None:
        monkeypatch.setattr(walks, "_PART", part)
        monkeypatch.setattr(walks, "_LOOKED", part + 1)
        first = next(number)
        for old in older:
            await act("old" if old else "new", 0, {"": True})
        there = {f"o{i:04}": True for i in range(first + 1, next(number))}
        found: list[str] = []
        left = iter(meanwhile)
        async for some in walk(store, Filters(id_prefix="o", kinds=kinds)):
            found += [operation.id for operation in some.operations]
            if there:
                await act(*next(left, ("", 0)), there)
        counts = Counter(found)
        assert max(counts.values(), default=0) < 2
        wanted = {id for id, all_the_time in there.items() if all_the_time}
        if kinds:
            wanted = {id for id in wanted if (await store.get(id)).kind == "k"}
        assert wanted <= counts.keys()
        for id in [id.decode() for id in await _listed(store)]:
            await store.delete(id, force=True)
        await store.upkeep.repair()

    meanwhile = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 50)), max_size=12)
    kinds = st.sampled_from(((), (), ("k",)))
    await holds(check, st.lists(st.booleans(), max_size=25), meanwhile, st.integers(1, 9), kinds, examples=50)


async def _listed(store: Store) -> list[bytes]:
    lanes = [store.keyspace.lane(lane) for lane in range(store.keyspace.lanes)]
    return [id for lane in lanes for id in await store.connections.commands.zrange(lane.index, 0, -1)]


async def test_it_tells_what_matches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store)
    operations = await all_of(store)

    async def check(given: Filters, looked: int) -> None:
        monkeypatch.setattr(walks, "_LOOKED", looked)
        assert sorted(await told(walk(store, given))) == sorted(it.id for it in operations if given.match(it))

    await holds(check, filters(operations), st.sampled_from((2, 250)), examples=40)


async def test_a_large_lane_is_walked_in_parts_and_on_from_a_cursor(store: Store) -> None:
    redis, lane = store.connections.commands, store.keyspace.lane(0)
    ids = [id for id in (f"o{i}" for i in range(9_000)) if store.keyspace.lane_of(id) == 0][:700]
    async with redis.pipeline(transaction=False) as pipeline:
        for at, id in enumerate(ids):
            fields = {"schema": "2", "spec": "{}", "status": "running", "position": "1795000000000-1"}
            fields |= {"n": "1", "created": str(1_795_000_000_000 + at), "attempt": "1"}
            pipeline.hset(store.keyspace.operation(id).snapshot, mapping=fields)
        pipeline.zadd(lane.index, dict.fromkeys(ids, 1_795_000_000_000))
        pipeline.zadd(lane.creation_order, {id: 1_795_000_000_000 + at for at, id in enumerate(ids) if at % 7})
        await pipeline.execute()
    parts = [part async for part in walk(store, Filters())]
    assert sorted(operation.id for part in parts for operation in part.operations) == sorted(ids)
    assert max(len(part.operations) for part in parts) <= 250
    assert not parts[-1].lanes_away
    ordered = set(ids) - set(ids[::7])
    for at, part in enumerate(parts):
        before = {operation.id for part in parts[: at + 1] for operation in part.operations}
        again = await told(walk(store, Filters(), cursor=part.cursor))
        assert (set(again) | before) >= set(ids)
        assert not set(again) & before & ordered
    assert await told(walk(store, Filters(), cursor=parts[-1].cursor)) == []
    await redis.delete(*(store.keyspace.operation(id).snapshot for id in ids), lane.index, lane.creation_order)


@pytest.mark.parametrize("cursor", ["x", "MTcgYQ==", "d2FsayB4", "d2FsayAxIDI="])
async def test_a_cursor_of_something_else_is_rejected(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        await told(walk(store, Filters(), cursor=cursor))
