import asyncio

import pytest

from progress_broker import errors
from progress_broker.history import event_log
from progress_broker.history.event_log import UNREADABLE
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import TERMINAL, TRANSITIONS, NewOperation, Status
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.settings import Settings
from progress_broker.stream.frames import snapshot_frame
from tests.servers import eventually


def entry(kind: str, data: object, store: Store, **more: object) -> NewEvent:
    return encode(kind, data, store.settings, **more)  # type: ignore[arg-type]


def progress(store: Store, current: int = 1, **more: object) -> NewEvent:
    return entry("progress", {"current": current}, store, **more)


def end(store: Store, status: str = "succeeded", **more: object) -> NewEvent:
    return entry("end", {"status": status}, store, **more)


def bringing(status: str) -> NewEvent:
    return NewEvent("end" if status in TERMINAL else "status", b'{"status":"%b"}' % status.encode(), status)


async def numbers(store: Store, operation: str) -> list[int]:
    return [event.n for event in await event_log.kept(store, operation, 10_000)]


class TestCreating:
    async def test_an_operation_begins_pending_with_one_event(self, store: Store) -> None:
        operation, new = await store.create(
            NewOperation(id="a", kind="import", title="T", owner="alice", tags=["eu", "eu"], parent="p")
        )
        assert new
        assert (operation.status, operation.done, operation.attempt, operation.events) == ("pending", False, 1, 1)
        assert (operation.kind, operation.title, operation.owner, operation.parent) == ("import", "T", "alice", "p")
        events = await event_log.kept(store, "a", 10)
        assert [(event.n, event.type, event.data) for event in events] == [(1, b"status", b'{"status":"pending"}')]
        assert operation.position == events[0].position.decode()

    async def test_the_same_body_again_is_the_same_operation(self, store: Store) -> None:
        first, _ = await store.create(NewOperation(id="a", kind="import"))
        again, new = await store.create(NewOperation(id="a", kind="import"))
        assert (again, new) == (first, False)

    async def test_another_body_is_rejected_and_changes_nothing(self, store: Store) -> None:
        first, _ = await store.create(NewOperation(id="a", kind="import"))
        with pytest.raises(errors.OperationExists):
            await store.create(NewOperation(id="a", kind="export"))
        assert await store.get("a") == first

    async def test_without_an_id_each_gets_its_own(self, store: Store) -> None:
        made = {(await store.create(NewOperation()))[0].id for _ in range(5)}
        assert len(made) == 5

    async def test_a_lease_is_kept_only_where_one_is_wanted(self, store: Store) -> None:
        for name, new in (("with", NewOperation(id="with")), ("without", NewOperation(id="without", lease_s=None))):
            await store.create(new)
            await store.publish(name, [progress(store)])
        held = [
            await store.connections.commands.zscore(store.keyspace.operation(o).lane.leases, o)
            for o in ("with", "without")
        ]
        assert held[0] is not None
        assert held[1] is None


class TestPublishing:
    async def test_log_and_feed_hold_each_event_under_one_id(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        for i in range(3):
            await store.publish("a", [progress(store, i), entry("log", {"message": "m"}, store)])
        keys = store.keyspace.operation("a")
        log = await store.connections.commands.xrange(keys.log)
        created, *feed = await store.connections.commands.xrange(keys.lane.feed)
        assert created[1] == [b"o", b"a", b"t", b"created", b"d", b"kind:operation"]
        assert [item[0] for item in log] == [item[0] for item in feed]
        assert await numbers(store, "a") == list(range(1, 9))

    async def test_the_answer_tells_position_count_and_cancel(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        answer = await store.publish("a", [progress(store)])
        now = await store.get("a")
        assert (answer.position, answer.events, answer.cancel_requested) == (now.position, 3, False)
        await store.cancel("a", reason="enough", by="bob")
        assert (await store.publish("a", [progress(store)])).cancel_requested

    async def test_progress_starts_a_pending_operation(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [entry("log", {"message": "queued"}, store)])
        assert (await store.get("a")).status is Status.PENDING
        await store.publish("a", [progress(store, 7)])
        now = await store.get("a")
        assert now.status is Status.RUNNING
        assert now.started_at is not None
        assert now.progress == {"current": 7}

    async def test_a_repeat_is_stored_once_and_gets_its_first_answer(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        answers = [await store.publish("a", [progress(store, i, producer="p", seq=i)]) for i in range(1, 6)]
        for seq in (5, 3, 1):
            assert await store.publish("a", [progress(store, 99, producer="p", seq=seq)]) == answers[seq - 1]
        assert await numbers(store, "a") == [1, 2, 3, 4, 5, 6, 7]

    async def test_a_batch_with_repeats_stores_the_rest(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        batch = [entry("log", {"message": str(seq)}, store, producer="p", seq=seq) for seq in (1, 2, 3)]
        await store.publish("a", batch[:2])
        assert (await store.publish("a", batch)).events == 4

    async def test_a_repeated_end_is_answered_and_anything_else_is_rejected(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        first = await store.publish("a", [end(store, producer="p", seq=1)])
        assert await store.publish("a", [end(store, producer="p", seq=1)]) == first
        for late in (progress(store), end(store, "failed"), progress(store, producer="p", seq=2)):
            with pytest.raises(errors.OperationEnded):
                await store.publish("a", [late])
        assert (await store.get("a")).status is Status.SUCCEEDED

    async def test_a_batch_is_stored_whole_or_not_at_all(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        with pytest.raises(errors.OperationEnded):
            await store.publish("a", [progress(store), end(store), progress(store)])
        assert await numbers(store, "a") == [1]

    async def test_an_earlier_attempt_is_fenced(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.connections.commands.hset(store.keyspace.operation("a").snapshot, "attempt", 2)
        with pytest.raises(errors.Fenced):
            await store.publish("a", [progress(store)], attempt=1)
        assert (await store.publish("a", [progress(store)], attempt=2)).events == 3

    async def test_nothing_is_published_to_what_does_not_exist(self, store: Store) -> None:
        with pytest.raises(errors.NotFound):
            await store.publish("nope", [progress(store)])
        assert await store.connections.commands.exists(store.keyspace.operation("nope").log) == 0

    @pytest.mark.parametrize("before", list(Status))
    async def test_the_script_allows_exactly_the_transitions_of_the_model(self, store: Store, before: Status) -> None:
        paths = {
            Status.PENDING: [],
            Status.RUNNING: ["running"],
            Status.STALLED: ["running", "stalled"],
            Status.CANCELLING: ["cancelling"],
        }
        for after in Status:
            name = f"{before}-{after}"
            await store.create(NewOperation(id=name))
            for step in paths.get(before, [before]):
                await store.publish(name, [bringing(step)])
            try:
                await store.publish(name, [bringing(after)])
                allowed = True
            except (errors.InvalidInput, errors.OperationEnded):
                allowed = False
            assert allowed == (after in TRANSITIONS[before]), name

    async def test_a_stalled_operation_runs_again_when_its_worker_reports(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [NewEvent("status", b"{}", "running"), NewEvent("status", b"{}", "stalled")])
        await store.publish("a", [entry("log", {"message": "back"}, store)])
        assert (await store.get("a")).status is Status.RUNNING
        assert (await event_log.kept(store, "a", 10))[-2].data == b'{"status":"running"}'

    async def test_a_feed_that_begins_anew_on_a_slow_clock_stays_behind_the_log(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        keys = store.keyspace.operation("a")
        far = b"99999999999999-5"
        await store.connections.commands.hset(keys.snapshot, "position", far)
        await store.connections.commands.xadd(keys.log, {"n": "2", "t": "log", "d": "{}"}, id=far)
        await store.connections.commands.hset(keys.snapshot, "n", 2)
        answer = await store.publish("a", [progress(store), progress(store)])
        assert answer.position == "99999999999999-8"
        log, feed = [await store.connections.commands.xrange(key) for key in (keys.log, keys.lane.feed)]
        assert [item[0] for item in log][-3:] == [item[0] for item in feed][-3:]

    async def test_producers_are_remembered_up_to_a_bound(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        for i in range(300):
            await store.publish("a", [progress(store, producer=f"p{i}", seq=1)])
        fields = await store.connections.commands.hkeys(store.keyspace.operation("a").snapshot)
        kept = [field for field in fields if field.startswith(b"producer:")]
        assert len(kept) == 256
        assert b"producer:p299" in kept
        assert b"producer:p0" not in kept


class TestEnding:
    @pytest.mark.parametrize("status", sorted(TERMINAL))
    async def test_an_end_says_how_and_starts_retention(self, store: Store, status: str) -> None:
        await store.create(NewOperation(id="a"))
        outcome = {"status": status, "result": {"rows": 3}, "error": {"type": "x", "message": "y"}}
        await store.publish("a", [entry("end", outcome, store)])
        now = await store.get("a")
        assert (now.status, now.done, now.result, now.error) == (
            status,
            True,
            {"rows": 3},
            {"type": "x", "message": "y"},
        )
        assert now.finished_at is not None
        assert now.expires_at is not None
        assert (now.expires_at - now.finished_at).total_seconds() == store.settings.retention_s

    async def test_an_end_gives_the_lease_back(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        leases = store.keyspace.operation("a").lane.leases
        await store.publish("a", [progress(store)])
        assert await store.connections.commands.zcard(leases) == 1
        await store.publish("a", [end(store)])
        assert await store.connections.commands.zcard(leases) == 0


class TestCancelling:
    async def test_one_not_begun_ends_at_once(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        operation, changed = await store.cancel("a", reason="no need")
        assert changed
        assert operation.status is Status.CANCELLED
        assert operation.error == {"type": "cancelled", "message": "no need"}

    async def test_a_running_one_is_asked_once(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [progress(store)])
        operation, changed = await store.cancel("a", reason="enough", by="bob")
        assert changed
        assert (operation.status, operation.cancel_requested) == (Status.CANCELLING, True)
        again, changed = await store.cancel("a")
        assert (again, changed) == (operation, False)
        signals = await store.connections.commands.xrange(store.keyspace.operation("a").signals)
        assert len(signals) == 1
        assert b'"reason":"enough"' in signals[0][1][3]

    async def test_an_ended_one_stays_as_it_is(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [end(store)])
        before = await store.get("a")
        assert await store.cancel("a") == (before, False)

    async def test_many_at_once_make_one_event(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [progress(store)])
        changed = [changed for _, changed in await asyncio.gather(*(store.cancel("a") for _ in range(10)))]
        events = [event for event in await event_log.kept(store, "a", 100) if b"cancelling" in event.data]
        assert len(events) == 1
        assert any(changed)


class TestDeleting:
    async def test_a_deleted_one_is_gone_and_its_id_not_free(self, store: Store) -> None:
        await store.create(NewOperation(id="a", owner="alice", tags=["x"]))
        await store.publish("a", [end(store)])
        await store.delete("a")
        for call in (
            store.get("a"),
            store.delete("a"),
            store.publish("a", [progress(store)]),
            store.create(NewOperation(id="a")),
        ):
            with pytest.raises(errors.Gone):
                await call

    async def test_one_that_runs_needs_force(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [progress(store)])
        with pytest.raises(errors.OperationRunning):
            await store.delete("a")
        await store.delete("a", force=True)
        with pytest.raises(errors.Gone):
            await store.get("a")

    async def test_what_never_was_is_not_found(self, store: Store) -> None:
        with pytest.raises(errors.NotFound):
            await store.delete("a")


class TestReadingTheLog:
    @pytest.fixture
    def settings(self) -> Settings:
        from tests.conftest import make_settings

        return make_settings(history_length=100)

    async def fill(self, store: Store, count: int) -> list[str]:
        await store.create(NewOperation(id="a"))
        first = (await store.get("a")).position
        return [
            first,
            *[(await store.publish("a", [entry("log", {"message": "m"}, store)])).position for _ in range(count)],
        ]

    async def test_a_known_position_is_followed_by_what_came_after(self, store: Store) -> None:
        at = await self.fill(store, 5)
        page = await event_log.after(store, "a", at[2], 2)
        assert page.reset is None
        assert page.at is not None
        assert (page.at.n, [event.n for event in page.events]) == (3, [4, 5])

    async def test_the_last_position_is_followed_by_nothing(self, store: Store) -> None:
        at = await self.fill(store, 2)
        page = await event_log.after(store, "a", at[-1], 10)
        assert (page.events, page.reset) == ([], None)

    async def test_a_trimmed_position_is_told(self, store: Store) -> None:
        at = await self.fill(store, 320)
        assert (await event_log.after(store, "a", at[0], 10)).reset == "trimmed"
        assert (await event_log.after(store, "a", "0-0", 10)).reset == "trimmed"
        assert (await event_log.kept(store, "a", 1))[0].n > 100

    async def test_an_unknown_position_is_told_as_lost(self, store: Store) -> None:
        at = await self.fill(store, 3)
        for unknown in ("1-1", "99999999999999-0", f"{at[1].partition('-')[0]}-77"):
            assert (await event_log.after(store, "a", unknown, 10)).reset == "lost", unknown

    async def test_before_everything_is_everything(self, store: Store) -> None:
        await self.fill(store, 3)
        assert [event.n for event in (await event_log.after(store, "a", "0-0", 10)).events] == [1, 2, 3, 4]

    async def test_following_goes_on_to_the_end(self, store: Store) -> None:
        await self.fill(store, 2)

        async def follow() -> list[int]:
            return [event.n async for event in event_log.follow(store, "a", "0-0")]

        following = asyncio.create_task(follow())
        await store.publish("a", [progress(store), end(store)])
        assert await asyncio.wait_for(following, 10) == [1, 2, 3, 4, 5, 6]

    async def test_what_a_foreign_hand_wrote_is_passed_over(self, store: Store) -> None:
        at = await self.fill(store, 1)
        await store.connections.commands.xadd(store.keyspace.operation("a").log, {"junk": b"\xff", "n": "x"})
        await store.publish("a", [entry("log", {"message": "m"}, store)])
        assert [event.n for event in (await event_log.after(store, "a", at[0], 10)).events] == [2, 3]


async def expired(store: Store, id: str) -> None:
    """Wait until an operation has expired, and what is left of it is due to be swept.

    In real Redis that is at once. The Redis in memory reads the clock anew within a script.
    """
    client, keys = store.connections.commands, store.keyspace.operation(id)
    [(_, due_ms)] = await client.zrange(keys.lane.expiry, 0, -1, withscores=True)

    async def over() -> bool:
        seconds, microseconds = await client.time()
        return not await client.exists(keys.snapshot) and 1000 * seconds + microseconds // 1000 >= due_ms

    await eventually(over, "it expires")


class TestSweeping:
    async def test_nothing_is_left_of_operations_whose_retention_has_passed(self, store: Store) -> None:
        for i in range(30):
            await store.create(
                NewOperation(id=f"a{i}", owner="alice", tags=["x", "y"], kind="k", parent="p", retention_s=0.05)
            )
            await store.publish(f"a{i}", [progress(store), end(store)])

        async def left() -> set[str]:
            await store.upkeep.sweep()
            masters = await store.connections.masters()
            keys = {key.decode().rpartition(":")[2] for it in masters async for key in it.scan_iter()}
            return keys - {"meta", "feed", "length"}

        async def none_left() -> bool:
            return not await left()

        await eventually(none_left, "everything is swept")

    async def test_one_created_again_under_the_same_id_is_spared(self, store: Store) -> None:
        await store.create(NewOperation(id="a", owner="alice", retention_s=0.05))
        await store.publish("a", [end(store)])

        await expired(store, "a")
        await store.create(NewOperation(id="a", owner="bob"))
        await store.upkeep.sweep()
        assert (await store.get("a")).owner == "bob"
        client, lane = store.connections.commands, store.keyspace.operation("a").lane
        assert await client.zrange(lane.index_of("owner", "bob"), 0, -1) == [b"a"]
        assert not await client.exists(lane.index_of("owner", "alice"))

    async def test_one_that_still_runs_is_spared(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        assert await store.upkeep.sweep() == 0
        assert (await store.get("a")).events == 1


class TestForeignHands:
    @pytest.mark.parametrize("data", [b"\xff", b"{}", b"null", b'{"status":"failed"}', b'{"status":'])
    async def test_an_end_that_does_not_say_so_is_rejected(self, store: Store, data: bytes) -> None:
        await store.create(NewOperation(id="a"))
        with pytest.raises(errors.InvalidInput):
            await store.publish("a", [NewEvent("end", data, "succeeded")])
        with pytest.raises(errors.InvalidInput):
            await store.publish("a", [NewEvent("log", b'{"status":"succeeded"}', "succeeded")])
        assert await numbers(store, "a") == [1]

    async def test_an_outcome_of_another_shape_is_shown_all_the_same(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [NewEvent("end", b'{"status":"failed","error":"no room"}', "failed")])
        assert (await store.get("a")).error == {"type": "malformed", "message": "no room"}

    @pytest.mark.parametrize("spec", [b"{}", b"not json", b"[]", b'{"kind":5}', b"\xff"])
    async def test_a_strange_creation_hides_nobody(self, store: Store, spec: bytes) -> None:
        for name in ("a", "b"):
            await store.create(NewOperation(id=name))
        await store.connections.commands.hset(store.keyspace.operation("a").snapshot, "spec", spec)
        assert (await store.get("a")).status is Status.PENDING
        assert {operation.id for operation in (await find_page(store, Filters())).operations} == {"a", "b"}

    @pytest.mark.parametrize(
        ("field", "value"),
        [("status", b"odd"), ("n", b"x"), ("position", b"x"), ("created", b"1e99"), ("finished", b"9" * 40)],
    )
    async def test_what_is_no_operation_is_not_found_and_hides_nobody(
        self, store: Store, field: str, value: bytes
    ) -> None:
        for name in ("a", "b"):
            await store.create(NewOperation(id=name))
        await store.connections.commands.hset(store.keyspace.operation("a").snapshot, field, value)
        with pytest.raises(errors.NotFound):
            await store.get("a")
        assert [operation.id for operation in (await find_page(store, Filters())).operations] == ["b"]

    async def test_a_strange_length_is_told_apart(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            await store.create(NewOperation(id=name))
        client, keyspace = store.connections.commands, store.keyspace
        await client.hset(keyspace.operation("a").snapshot, "n", "x")
        await client.delete(keyspace.operation("b").snapshot)
        await client.set(keyspace.operation("b").snapshot, "not a hash", ex=100)
        told = await event_log.last_events(store, ["a", "b", "c", "d"])
        assert [stand and stand.n for stand in told] == [UNREADABLE.n, UNREADABLE.n, 1, None]
        await client.delete(keyspace.operation("b").snapshot)

    async def test_nothing_is_left_of_one_that_expired_came_again_and_was_deleted(self, store: Store) -> None:
        await store.create(NewOperation(id="a", retention_s=0.05))
        await store.publish("a", [end(store)])

        await expired(store, "a")
        await store.create(NewOperation(id="a"))
        await store.delete("a", force=True)
        await store.upkeep.sweep()
        lane = store.keyspace.operation("a").lane
        assert not await store.connections.commands.exists(lane.index_of("status", "succeeded"))


class TestDepth:
    @pytest.mark.parametrize("kind", ["progress", "custom"])
    async def test_what_could_not_be_shown_is_rejected(self, store: Store, kind: str) -> None:
        deep: object = 1
        for _ in range(250):
            deep = [deep]
        with pytest.raises(errors.InvalidInput):
            entry(kind, {"x": deep}, store)

    async def test_what_a_foreign_hand_stored_all_the_same_hides_nothing(self, store: Store) -> None:
        await store.create(NewOperation(id="a"))
        await store.publish("a", [NewEvent("progress", b'{"x":' + b"[" * 252 + b"]" * 252 + b"}")])
        now = await store.get("a")
        assert now.progress is None
        snapshot_frame(now)
