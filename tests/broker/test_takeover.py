"""Only one connection per identifier stays open, over all replicas: here two hubs on one Redis."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from progress_broker.access.takeover import KEPT_S, REPLACED, Takeover
from progress_broker.hub import Hub
from progress_broker.operations.store import Store
from tests.keyspace import keys_of_all
from tests.servers import eventually


@pytest.fixture
async def replicas(store: Store) -> AsyncIterator[list[Takeover]]:
    async with AsyncExitStack() as stack:
        both = []
        for _ in range(2):
            takeover = await stack.enter_async_context(Takeover(store, check_interval_s=3600))
            hub = await stack.enter_async_context(Hub(store, store.settings))
            hub.internal_handlers[REPLACED] = takeover.received
            await hub.started()
            both.append(takeover)
        yield both


async def keys_of(store: Store) -> list[bytes]:
    return [key for key in await keys_of_all(store.connections) if key.startswith(b"pb:newest:")]


async def test_a_newer_one_replaces_the_older_on_any_replica(replicas: list[Takeover]) -> None:
    here, there = replicas
    gone: list[str] = []
    await here.claim("tab", "1", lambda: gone.append("1"))
    await here.claim("other tab", "2", lambda: gone.append("2"))
    await there.claim("tab", "3", lambda: gone.append("3"))
    await eventually(lambda: gone, "the older one is told")
    await here.claim("tab", "4", lambda: gone.append("4"))
    await eventually(lambda: len(gone) == 2, "so is the next")
    assert gone == ["1", "3"]
    assert (len(here), len(there)) == (2, 0)


async def test_a_look_finds_what_was_missed(store: Store) -> None:
    gone: list[str] = []
    async with Takeover(store) as here, Takeover(store) as there:  # no feed reports it to either of them
        await here.claim("tab", "1", lambda: gone.append("1"))
        await there.claim("tab", "2", lambda: gone.append("2"))
        await there.check_all()
        assert gone == []
        await here.check_all()
        assert gone == ["1"]
        assert (len(here), len(there)) == (0, 1)


async def test_a_look_restores_what_redis_has_lost(store: Store) -> None:
    gone: list[str] = []
    async with Takeover(store) as here, Takeover(store) as there:
        await here.claim("tab", "2", lambda: gone.append("2"))
        [key] = await keys_of(store)
        await store.connections.commands.set(key, "1", ex=KEPT_S)  # what was there before
        await here.check_all()
        assert await store.connections.commands.get(key) == b"2"
        await store.connections.commands.delete(key)
        await here.check_all()
        assert await store.connections.commands.get(key) == b"2"
        await there.claim("tab", "3", lambda: gone.append("3"))
        await here.check_all()
        assert gone == ["2"]


async def test_keys_live_while_their_connection_does_and_tell_no_identifier(store: Store) -> None:
    async with Takeover(store) as here:
        await here.claim("alice\0tab", "1", lambda: None)
        [key] = await keys_of(store)
        assert b"alice" not in key
        await store.connections.commands.expire(key, 5)
        await here.check_all()
        assert await store.connections.commands.ttl(key) > 5
        here.release("1")
        await store.connections.commands.expire(key, 5)
        await here.check_all()
        assert await store.connections.commands.ttl(key) <= 5
