"""After operations have expired, nothing of them is left, neither in Redis nor in a replica."""

import asyncio

import pytest

from progress_broker.hub import Hub
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.delivery import Start
from tests.broker.harness import Outlet
from tests.conftest import make_settings
from tests.servers import eventually

OPERATIONS = {"redis": 1000, "fakeredis": 100}  # the double is slow


@pytest.fixture
def settings() -> Settings:
    return make_settings(retention_s=3, sweep_interval_s=0.5)


async def test_nothing_is_left_of_a_thousand_operations(store: Store, backend: str) -> None:
    operations = OPERATIONS[backend]
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
            keys = {key.decode() async for key in store.connections.commands.scan_iter(count=1000)}
            return {key for key in keys if not key.endswith((":feed", ":meta")) and "~probe-" not in key}

        async def nothing_left() -> bool:
            return not await left()

        await eventually(nothing_left, "everything is swept")
        assert not hub.channels
        assert len(hub.wheel) == 0
        assert len(hub._loader) == 0
        assert len(hub._resumer._single_flight) == 0
