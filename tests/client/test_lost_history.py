"""Redis loses history while a client watches, or while it is away: the client is told, and then all that is stored."""

from collections.abc import AsyncIterator

import pytest

from progress_broker.model.entry import encode
from progress_broker.operations.store import Store
from progress_client import AsyncClient, End, Event, Reset
from tests.conftest import make_settings
from tests.losses import Remembered
from tests.servers import RealRedis


@pytest.fixture
async def store(redis_server: RealRedis) -> AsyncIterator[Store]:
    async with await Store.open(make_settings(redis_url=redis_server.url)) as store:
        yield store


async def log(store: Store, id: str, count: int, message: str) -> None:
    await store.publish(id, [encode("log", {"message": f"{message} {i}"}, store.settings) for i in range(count)])


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    return [await anext(events) for _ in range(count)]


@pytest.mark.parametrize("away", [False, True])
async def test_all_that_is_stored_is_told_after_a_loss(aclient: AsyncClient, store: Store, id: str, away: bool) -> None:
    await aclient.create(id=id)
    await log(store, id, 3, "both have")
    before = await Remembered.of(store, id)
    events = aclient.watch(id, after="start")
    *_, shared = await take(events, 4)
    await log(store, id, 2, "lost")
    *_, last = await take(events, 2)
    if away:
        await events.aclose()
    await before.lose_the_rest()
    await log(store, id, 5, "stored")
    await store.publish(id, [encode("end", {"status": "succeeded"}, store.settings)])
    reset, *others = [event async for event in (aclient.watch(id, after=last.position) if away else events)]
    if away:  # the position may be any time
        others = [reset, *others]
    else:
        assert isinstance(reset, Reset)
        assert (reset.reason, reset.state.events > shared.n) == ("lost", True)
        assert (reset.n, reset.position) in ((shared.n, shared.position), (0, "0-0"))
        again, others = others[: shared.n - reset.n], others[shared.n - reset.n :]
        assert [event.n for event in again] == [*range(reset.n + 1, shared.n + 1)]
    told = [event.data["message"] for event in others[:-1]]
    assert told == [f"stored {i}" for i in range(5)]
    assert isinstance(others[-1], End)
    assert [event.n for event in others] == [*range(shared.n + 1, shared.n + 7)]
