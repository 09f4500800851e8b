"""After operations have expired, nothing of them is left, neither in Redis nor in a replica."""

import asyncio

import pytest

from progress_broker.hub import Hub
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations import retention
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.delivery import Start
from tests.broker.harness import Outlet
from tests.conftest import make_settings
from tests.keyspace import keys_of_all
from tests.servers import eventually

FEWER = {"fakeredis": 100}  # the double is slow


@pytest.fixture
def settings() -> Settings:
    return make_settings(retention_s=3, sweep_interval_s=0.5)


async def test_nothing_is_left_of_a_thousand_operations(store: Store, backend: str) -> None:
    operations = FEWER.get(backend, 1000)
    async with Reaper(store), Hub(store, store.settings) as hub:
        await hub.started()

        async def live(i: int) -> Outlet:
            name = f"op-{i}"
            await store.create(NewOperation(id=name, owner=f"owner-{i % 50}", kind=f"kind-{i % 7}", tags=[f"tag-{i}"]))
            subscription = await hub.subscribe(name, Start())
            outlet = Outlet(subscription)
            subscription.attach(outlet)
            entries = [("progress", {"current": 1}), ("log", {"message": "m"}), ("end", {"status": "succeeded"})]
            await store.publish(name, [encode(type, data, store.settings) for type, data in entries])
            return outlet

        outlets: list[Outlet] = []
        for first in range(0, operations, 50):
            outlets += await asyncio.gather(*(live(i) for i in range(first, first + 50)))
        await eventually(lambda: all(outlet.closed for outlet in outlets), "all streams end")
        assert [outlet.reasons() for outlet in outlets if outlet.types[-1] != "end"] == []

        async def left() -> set[str]:
            keys = {key.decode() for key in await keys_of_all(store.connections)}
            return {
                key
                for key in keys
                if not key.endswith((":feed", ":meta", ":policy", ":length")) and "~probe-" not in key
            }

        async def nothing_left() -> bool:
            return not await left()

        await eventually(nothing_left, "everything is swept")
        assert not hub.channels
        assert len(hub.wheel) == 0
        assert len(hub._loader) == 0
        assert len(hub._resumer._single_flight) == 0


async def expires_in_s(store: Store, operation: str) -> float:
    """Return in how many seconds an operation expires, by all that says so."""
    keys, redis = store.keyspace.operation(operation), store.connections.commands
    left = [await redis.pttl(key) for key in (keys.snapshot, keys.log, keys.kept, keys.curve)]
    assert left[0] > 0
    assert all(ms == -2 or abs(ms - left[0]) < 1_000 for ms in left)  # -2: no such key
    expires = float(await redis.hget(keys.snapshot, "expires") or 0)
    scores = {
        member.partition(b"\n")[0]: score
        for member, score in await redis.zrange(keys.lane.expiry, 0, -1, withscores=True)
    }
    assert scores[operation.encode()] == expires
    return left[0] / 1_000


class TestAnOperatorsChange:
    """`retention.change`, and what a server does when its settings name another retention."""

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(history_length=100)

    async def test_applies_to_operations_that_exist_and_to_those_that_follow(self, store: Store) -> None:
        for id, asked_s in (("ended", None), ("open", None), ("brief", 60.0)):
            await store.create(NewOperation(id=id, retention_s=asked_s))
            await store.publish(id, [encode("log", {"message": "m"}, store.settings)] * 300)
        for id in ("ended", "brief"):
            await store.publish(id, [encode("end", {"status": "succeeded"}, store.settings)])
        assert await retention.read(store) == retention.Retention.default()
        looked: list[int] = []
        assert await retention.change(store, retention.Retention(3_600, 7_200), looked.append) == (3, 2)
        assert looked[-1] == 3
        assert await retention.read(store) == retention.Retention(3_600, 7_200)
        assert [round(await expires_in_s(store, id), -2) for id in ("ended", "open")] == [3_600, 7_200]
        assert await expires_in_s(store, "brief") <= 60
        await store.publish("open", [encode("end", {"status": "succeeded"}, store.settings)])
        assert round(await expires_in_s(store, "open"), -2) == 3_600
        await store.create(NewOperation(id="later"))
        assert round(await expires_in_s(store, "later"), -2) == 7_200
        assert await retention.change(store, retention.Retention(36_000, 7_200)) == (4, 2)
        assert await expires_in_s(store, "brief") <= 60, "its creator asked for less"

    async def test_what_is_over_by_then_is_swept(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [encode("end", {"status": "succeeded"}, store.settings)])
        await retention.change(store, retention.Retention(0.001, 7_200))

        async def gone() -> bool:
            await store.upkeep.sweep()
            return not await store.connections.commands.zcard(store.keyspace.operation("a").lane.expiry)

        await eventually(gone, "it is swept")

    async def test_is_repeated_by_a_server_whose_settings_name_it(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        named = Store(store.connections, store.keyspace, make_settings(retention_s=60, idle_timeout_s=600))
        async with Reaper(named):

            async def changed() -> bool:
                return await retention.read(store) == retention.Retention(60, 600)

            await eventually(changed, "the server sets what its settings name")
        assert await expires_in_s(store, "a") <= 600
        async with Reaper(store):  # a server that names nothing
            pass
        assert await retention.read(store) == retention.Retention(60, 600)
