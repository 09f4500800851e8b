"""No operation stays `running` after its worker has died: the reaper on both backends, and each of its rules."""

import asyncio
import time
from typing import Any

import orjson
import pytest

from progress_broker.errors import Conflict, Fenced, OperationEnded
from progress_broker.history import event_log
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, Status
from progress_broker.operations import retention
from progress_broker.operations.commands import publish_call, read_answer
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.conftest import make_settings
from tests.servers import eventually

RUNNING = NewEvent("status", b'{"status":"running"}', "running")
LEASE_S = 0.05


@pytest.fixture
def settings() -> Settings:
    return make_settings(worker_lost_after_s=1.5, lease_check_interval_s=0.02)


async def begin(store: Store, id: str = "op", lease_s: float | None = LEASE_S) -> None:
    await store.create(NewOperation(id=id, lease_s=lease_s))
    await store.publish(id, [RUNNING])


async def lapse(store: Store) -> None:
    async def lapsed() -> bool:
        return bool(await store.upkeep.expired_leases())

    await eventually(lapsed, "a lease lapses")


async def statuses(store: Store, id: str = "op") -> list[str]:
    events = await event_log.kept(store, id, 100)
    return [orjson.loads(event.data)["status"] for event in events if event.type in (b"status", b"end")]


async def test_a_silent_worker_s_operation_stalls_and_then_ends_as_lost(store: Store) -> None:
    reaper = Reaper(store)
    await begin(store, "alive", lease_s=60)
    await begin(store)
    await lapse(store)
    await reaper.reap()
    assert (await store.get("op")).status is Status.STALLED
    await reaper.reap()
    assert (await store.get("op")).status is Status.STALLED  # it waits for its worker
    await lapse(store)
    await reaper.reap()
    operation = await store.get("op")
    assert operation.status is Status.FAILED
    assert operation.error is not None
    assert operation.error["type"] == "worker-lost"
    assert await statuses(store) == ["pending", "running", "stalled", "failed"]
    assert (reaper.stalled, reaper.lost) == (1, 1)
    assert (await store.get("alive")).status is Status.RUNNING
    assert await store.upkeep.expired_leases() == []


async def test_many_reapers_at_once_say_it_once(store: Store) -> None:
    reapers = [Reaper(store) for _ in range(5)]
    for i in range(10):
        await begin(store, f"op-{i}")
    for _ in range(2):
        await lapse(store)
        await asyncio.gather(*(reaper.reap() for reaper in reapers))
    assert sum(reaper.stalled for reaper in reapers) <= 10

    async def ended() -> bool:
        await asyncio.gather(*(reaper.reap() for reaper in reapers))
        return all([(await store.get(f"op-{i}")).done for i in range(10)])

    await eventually(ended, "all end")
    for i in range(10):
        assert await statuses(store, f"op-{i}") == ["pending", "running", "stalled", "failed"]


@pytest.mark.parametrize("sign", ["heartbeat", "progress"])
async def test_a_worker_that_comes_back_runs_again(store: Store, sign: str) -> None:
    await begin(store)
    await lapse(store)
    await Reaper(store).reap()
    entries = [] if sign == "heartbeat" else [encode("progress", {"current": 1}, store.settings)]
    await store.publish("op", entries, attempt=1)
    assert (await store.get("op")).status is Status.RUNNING
    assert await statuses(store) == ["pending", "running", "stalled", "running"]


async def test_a_beat_keeps_the_lease_and_tells_nothing(store: Store) -> None:
    await begin(store, lease_s=60)
    before = await store.get("op")
    answer = await store.publish("op", [], attempt=1)
    assert answer.events == before.events
    assert await store.get("op") == before


async def test_who_is_not_the_worker_keeps_no_lease_and_wakes_nothing(store: Store) -> None:
    await begin(store)
    await lapse(store)
    await store.publish("op", [encode("log", {"message": "from elsewhere"}, store.settings)], as_observer=True)
    assert len(await store.upkeep.expired_leases()) == 1
    await Reaper(store).reap()
    await store.publish("op", [encode("log", {"message": "from elsewhere"}, store.settings)], as_observer=True)
    assert (await store.get("op")).status is Status.STALLED


async def test_one_asked_to_stop_whose_worker_is_gone_is_cancelled(store: Store) -> None:
    await begin(store)
    await store.cancel("op", reason="enough", by="bob")
    await lapse(store)
    await Reaper(store).reap()
    operation = await store.get("op")
    assert operation.status is Status.CANCELLED
    assert operation.error is not None
    assert operation.error["type"] == "worker-lost"


async def test_without_a_lease_nothing_lapses(store: Store) -> None:
    await begin(store, lease_s=None)
    await store.publish("op", [encode("log", {"message": "still here"}, store.settings)])
    assert await store.connections.commands.zcard(store.keyspace.operation("op").lane.leases) == 0


async def test_an_attempt_that_gave_up_holds_the_lease_longer(store: Store) -> None:
    await begin(store)
    await store.publish("op", [encode("log", {"message": "again"}, store.settings)], attempt=1, lease_ms=60_000)
    await asyncio.sleep(2 * LEASE_S)
    assert await store.upkeep.expired_leases() == []


async def test_nobody_stalls_what_beats(store: Store) -> None:
    await begin(store, lease_s=60)
    with pytest.raises(Conflict, match="alive"):
        await store.publish(
            "op", [NewEvent("status", b'{"status":"stalled"}', "stalled")], expect="running", lease_expired=True
        )


async def test_a_deadline_in_a_distant_future_is_brought_back(store: Store) -> None:
    # As after Redis' clock was an hour ahead: without a correction, the worker's death would not be noticed.
    await begin(store)
    leases = store.keyspace.operation("op").lane.leases
    far = await store.connections.commands.zscore(leases, "op") + 3_600_000
    await store.connections.commands.zadd(leases, {"op": far})
    await store.upkeep.expired_leases()
    await lapse(store)


async def test_what_is_no_longer_there_is_not_told(store: Store) -> None:
    await begin(store)
    await store.connections.commands.delete(store.keyspace.operation("op").snapshot)
    leases = store.keyspace.operation("op").lane.leases

    async def forgotten() -> bool:
        return await store.upkeep.expired_leases() == [] and await store.connections.commands.zcard(leases) == 0

    await eventually(forgotten, "it is forgotten")


async def test_a_forced_cancel_ends_at_once_and_the_worker_is_rejected(store: Store) -> None:
    await begin(store, lease_s=60)
    now, changed = await store.cancel("op", reason="please", by="bob")
    assert (now.status, changed) == (Status.CANCELLING, True)
    assert now.cancel is not None
    assert (now.cancel.reason, now.cancel.by) == ("please", "bob")
    patience = now.cancel.overdue_at - now.cancel.requested_at
    assert patience.total_seconds() == pytest.approx(store.settings.force_cancel_after_s)
    now, changed = await store.cancel("op", reason="now", by="bob", force=True)
    assert (now.status, changed) == (Status.CANCELLED, True)
    with pytest.raises(OperationEnded):
        await store.publish("op", [], attempt=1)


async def test_cancelling_a_parent_cancels_its_children_and_theirs(store: Store) -> None:
    await begin(store, "parent", lease_s=60)
    for id, parent in (("a", "parent"), ("b", "parent"), ("a1", "a"), ("a2", "a"), ("other", None)):
        await store.create(NewOperation(id=id, parent=parent))
        await store.publish(id, [RUNNING])
    await store.publish("b", [encode("end", {"status": "succeeded"}, store.settings)])
    await store.cancel("parent", reason="enough", by="bob")
    found = {id: (await store.get(id)).status.value for id in ("parent", "a", "b", "a1", "a2", "other")}
    assert found == {
        "parent": "cancelling",
        "a": "cancelling",
        "b": "succeeded",
        "a1": "cancelling",
        "a2": "cancelling",
        "other": "running",
    }


async def test_operations_that_are_each_other_s_parents_can_be_cancelled(store: Store) -> None:
    for id, parent in (("x", "y"), ("y", "x")):
        await store.create(NewOperation(id=id, parent=parent))
    await store.cancel("x")
    assert [(await store.get(id)).done for id in ("x", "y")] == [True, True]


async def test_a_new_attempt_fences_the_one_before_and_begins_anew(store: Store) -> None:
    await begin(store, lease_s=60)
    await store.publish("op", [encode("progress", {"current": 7}, store.settings)], attempt=1)
    keys = store.keyspace.operation("op")

    def call(attempt: int) -> object:
        return publish_call("op", keys, [RUNNING], attempt=attempt, begins=True, worker="host:2")

    read_answer(await store.connections.scripts.run(call(2)))  # type: ignore[arg-type]
    now = await store.get("op")
    assert (now.attempt, now.worker, now.progress) == (2, "host:2", None)
    with pytest.raises(Fenced):
        await store.publish("op", [encode("progress", {"current": 8}, store.settings)], attempt=1)
    with pytest.raises(Fenced):
        await store.publish("op", [], attempt=1)
    for attempt in (1, 2, 4):
        with pytest.raises(Conflict):
            read_answer(await store.connections.scripts.run(call(attempt)))  # type: ignore[arg-type]
    assert (await store.get("op")).attempt == 2


async def test_after_redis_was_away_workers_have_time_to_say_that_they_are_alive(store: Store) -> None:
    await begin(store)
    await lapse(store)
    async with Reaper(store, grace_s=3600):
        await asyncio.sleep(0.3)
        assert (await store.get("op")).status is Status.RUNNING


async def test_beats_keep_an_operation_from_expiring_as_idle(store: Store) -> None:
    redis: Any = store.connections.commands
    # Of this a quarter may pass before it is renewed.
    await retention.change(store, retention.Retention(60, 8))
    await begin(store, lease_s=None)
    left_ms = await redis.pttl(store.keyspace.operation("op").snapshot)
    first_ms = 1000 * time.time() + left_ms  # or before

    async def renewed() -> bool:
        await store.publish("op", [], attempt=1, as_observer=True)
        now_ms = 1000 * time.time()
        return bool(now_ms + await redis.pttl(store.keyspace.operation("op").snapshot) > first_ms + 100)

    await eventually(renewed, "it is kept for longer")
    await store.delete("op", force=True)


async def test_one_created_anew_under_the_same_id_does_not_hear_of_the_one_before(store: Store) -> None:
    await begin(store, lease_s=60)
    first = await store.get("op")
    await store.delete("op", force=True)
    await store.connections.commands.delete(store.keyspace.operation("op").snapshot)  # as when its tombstone expires
    await asyncio.sleep(0.002)
    await begin(store, lease_s=60)
    created_ms = round(first.created_at.timestamp() * 1000)
    call = publish_call("op", store.keyspace.operation("op"), [RUNNING], attempt=1, created_ms=created_ms)
    with pytest.raises(Fenced):
        read_answer(await store.connections.scripts.run(call))
    assert (await store.get("op")).events == 2


async def test_a_foreign_status_does_not_keep_others_from_being_reaped(store: Store) -> None:
    await begin(store, "odd")
    await begin(store, "op")
    await store.connections.commands.hset(store.keyspace.operation("odd").snapshot, "status", "paused")
    await lapse(store)
    await Reaper(store).reap()
    assert (await store.get("op")).status is Status.STALLED
    await store.connections.commands.hset(store.keyspace.operation("odd").snapshot, "status", "running")


async def test_a_lease_that_is_held_for_the_next_attempt_is_not_cut_short_by_a_late_beat_or_a_helper(
    store: Store,
) -> None:
    await begin(store)
    leases = store.keyspace.operation("op").lane.leases
    await store.publish("op", [], attempt=1, lease_ms=60_000)
    held = await store.connections.commands.zscore(leases, "op")
    await store.publish("op", [], attempt=1)
    await store.publish("op", [encode("log", {"message": "a helper's"}, store.settings)])
    assert await store.connections.commands.zscore(leases, "op") == held
