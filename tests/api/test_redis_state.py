"""What metrics tell of Redis: operations by status, what ended, and whether the upkeep keeps pace."""

import time

import httpx

from progress_broker.operations.store import Store
from progress_broker.runtime.tally import MOST_KINDS, OTHER_KIND, Tally
from progress_server.observability.redis_state import EVERY_S, RedisState
from tests.api.test_metrics import scrape
from tests.api.test_operations import create, finish, publish
from tests.servers import eventually


async def test_operations_are_counted_by_status_and_those_that_ended_by_kind(http: httpx.AsyncClient) -> None:
    for id, kind in (("a", "import"), ("b", "import"), ("c", "export")):
        await create(http, id=id, kind=kind)
    await publish(http, "a", "end", {"status": "failed", "error": {"type": "t", "message": "m"}})
    await finish(http, "c")

    async def counted() -> bool:
        told = await scrape(http)
        ended = told("operations_ended_total", status="failed", kind="import")
        return bool(ended == told("operations_ended_total", status="succeeded", kind="export") == 1)

    async def seen() -> bool:
        try:
            return await counted()
        except (KeyError, ValueError, AssertionError):  # this kind has no sample yet
            return False

    await eventually(seen, "the ends are counted")
    told = await scrape(http)
    assert told("operations_ended_total", status="failed", kind=OTHER_KIND) == 0


async def test_it_is_read_every_five_seconds_at_most_and_tells_what_is_overdue(store: Store) -> None:
    now = 100.0
    state = RedisState(store, lambda: now)
    await state.refresh()
    assert state.operations is not None
    assert sum(state.operations.values()) == 0
    assert (state.unfinished_idle_s, state.expiry_overdue_s, state.leases_overdue_s) == (0, 0, 0)
    lane, ms = store.keyspace.lane(3), time.time() * 1000
    commands = store.connections.commands
    await commands.zadd(lane.index_of("status", "running"), {"a": ms - 50_000, "b": ms})
    await commands.zadd(lane.expiry, {"x\n": ms - 70_000, "a\n": ms + 50_000})
    await commands.zadd(lane.leases, {"a": ms - 90_000})
    await state.refresh()
    assert sum(state.operations.values()) == 0, "it was read just before"
    now += EVERY_S
    await state.refresh()
    assert state.operations is not None
    assert state.operations["running"] == 2
    for found, expected in ((state.unfinished_idle_s, 50), (state.expiry_overdue_s, 70), (state.leases_overdue_s, 90)):
        assert found is not None
        assert expected - 1 < found < expected + 120
    await commands.delete(lane.index_of("status", "running"), lane.leases)
    await commands.delete(lane.expiry)


def test_the_number_of_kinds_is_limited() -> None:
    tally = Tally()
    for number in range(MOST_KINDS + 10):
        tally.count_end("failed", f"kind-{number}")
    assert tally.ended["failed", OTHER_KIND] == 10
    assert tally.ended["failed", "kind-0"] == 1
