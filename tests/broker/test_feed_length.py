"""A feed belongs to its lane: no operation, and no process with other settings, shortens it for all."""

import pytest

from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.conftest import make_settings

NODE = 110  # MAXLEN ~ keeps up to a node more


@pytest.fixture
def settings() -> Settings:
    return make_settings(lanes=1)


async def length(store: Store) -> int:
    return int(await store.connections.commands.xlen(store.keyspace.lane(0).feed))


async def publish(store: Store, operation: str, events: int) -> None:
    for _ in range(events // 50):
        await store.publish(operation, [encode("log", {"message": "x"}, store.settings)] * 50)


@pytest.mark.parametrize("how", ["publish", "create", "delete", "probe"])
async def test_what_asks_for_less_shortens_it_for_nobody(store: Store, how: str) -> None:
    less = Store(store.connections, store.keyspace, store.settings.model_copy(update={"feed_length": 100}))
    await less.create(NewOperation(id="old"))
    await store.create(NewOperation(id="new"))
    await publish(store, "new", 1000)
    before = await length(store)
    match how:
        case "publish":
            await publish(less, "old", 50)
        case "create":
            await less.create(NewOperation(id="newer"))
        case "delete":
            await less.delete("old", force=True)
        case _:
            await less.probe(0, "~probe-1", b"1")
    assert await length(store) > before


async def test_a_server_says_how_long_it_is(store: Store) -> None:
    less = Store(store.connections, store.keyspace, store.settings.model_copy(update={"feed_length": 100}))
    await less.create(NewOperation(id="old"))
    await publish(less, "old", 500)
    assert await length(store) <= 100 + NODE
    await store.probe(0, "~probe-1", b"1")
    await publish(less, "old", 1000)
    assert await length(store) >= 1000
