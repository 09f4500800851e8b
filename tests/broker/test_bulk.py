"""Acting on many operations: what is chosen, how fast, what came of it; in a server as an operation itself."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from progress_broker.bulk import selection, verbs
from progress_broker.bulk.carrying import AT_ONCE, Report, carry_out
from progress_broker.bulk.job import Jobs
from progress_broker.errors import InvalidInput, LaneAway, NotFound, StorageUnavailable
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation, NewSignal, Operation, Status
from progress_broker.operations import retention
from progress_broker.operations.retention import PINNED, Keep, Retention
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from tests.servers import eventually


async def groups_of(*groups: Sequence[str]) -> AsyncIterator[Sequence[str]]:
    for group in groups:
        yield group


async def make(store: Store, *ids: str, ended: bool = False, kind: str = "k") -> None:
    for id in ids:
        await store.create(NewOperation(id=id, kind=kind))
        await store.publish(id, [encode("progress", {"percent": 1}, store.settings)])
        if ended:
            await store.publish(id, [encode("end", {"status": "failed"}, store.settings)])


class TestCarryingOut:
    async def test_counts_what_came_of_each(self) -> None:
        async def act(id: str) -> bool:
            match id[0]:
                case "g":
                    raise NotFound("gone")
                case "f":
                    raise InvalidInput("wrong")
            return id[0] == "a"

        report = await carry_out(act, groups_of(["a1", "b1"], [], ["g1", "f1", "a2"]), rps=1e6)
        assert (report.done, report.changed, report.skipped, report.failed) == (5, 2, 2, 1)
        assert [(it.operation, it.error.detail) for it in report.failures] == [("f1", "wrong")]
        assert report.ids == ["a1", "a2"]

    async def test_is_no_faster_than_asked(self) -> None:
        now, slept = 0.0, list[float]()

        async def sleep(for_s: float) -> None:
            nonlocal now
            slept.append(for_s)
            now += for_s

        async def act(id: str) -> bool:
            return True

        ids = [str(number) for number in range(4 * AT_ONCE)]
        await carry_out(act, groups_of(ids), rps=10, clock=lambda: now, sleep=sleep)
        assert slept == [AT_ONCE / 10] * 3

    async def test_stops_at_the_most(self) -> None:
        done: list[str] = []

        async def act(id: str) -> bool:
            done.append(id)
            return True

        ids = [str(number) for number in range(100)]
        assert (await carry_out(act, groups_of(ids[:60], ids[60:]), rps=1e6, most=70)).done == 70
        assert done == ids[:70]

    async def test_goes_on_without_lanes_that_are_away_and_stops_if_nothing_answers(self) -> None:
        async def act(id: str) -> bool:
            if id != "a":
                raise LaneAway("away")
            return True

        report = Report()
        with pytest.raises(StorageUnavailable):
            await carry_out(act, groups_of(["a", "b"], ["b"], ["a"]), rps=1e6, report=report)
        assert (report.changed, report.failed) == (1, 2)


class TestVerbs:
    async def test_cancel_what_has_not_ended(self, store: Store) -> None:
        await make(store, "a", "b")
        await make(store, "c", ended=True)
        verb = verbs.cancel(store, reason="too many", by="ann", force=True)
        assert selection.filters_for(verb, Filters()).statuses == verb.statuses
        chosen = selection.filters_for(verb, Filters(kinds=("k",)))
        assert (await selection.select(store, chosen, 10)).number == 2
        assert (await selection.select(store, chosen, 1)).number == 2, "one more than the most, and no further"
        report = await carry_out(verb.act, selection.found(store, chosen, set()), rps=1e6)
        assert (report.changed, report.skipped) == (2, 0)
        assert (await store.get("a")).error == {"type": "cancelled", "message": "too many", "by": "ann"}
        assert (await carry_out(verb.act, groups_of(["a", "c"]), rps=1e6)).skipped == 2
        with pytest.raises(InvalidInput, match="leave out status"):
            selection.filters_for(verb, Filters(statuses=frozenset({Status.FAILED})))

    async def test_signal_and_delete(self, store: Store) -> None:
        await make(store, "a")
        await make(store, "b", ended=True)
        signal = verbs.signal(store, NewSignal(type="pause"), by="ann")
        report = await carry_out(signal.act, groups_of(["a", "b", "none"]), rps=1e6)
        assert (report.changed, report.skipped) == (1, 2)
        delete = verbs.delete(store)
        report = await carry_out(delete.act, groups_of(["a", "b"]), rps=1e6)
        assert (report.changed, report.failed) == (1, 1)
        assert "cancel it, or delete it with force" in report.failures[0].error.detail
        assert (await carry_out(verbs.delete(store, force=True).act, groups_of(["a", "b"]), rps=1e6)).changed == 1


class TestRetention:
    async def kept_s(self, store: Store, id: str) -> float:
        """Return how long an operation's keys are still kept."""
        keys = store.keyspace.operation(id)
        lasts = {key: await store.connections.commands.pttl(key) for key in (keys.snapshot, keys.log)}
        assert max(lasts.values()) - min(lasts.values()) < 1_000
        return lasts[keys.snapshot] / 1000

    async def test_of_one_operation_counts_more_than_that_of_all(self, store: Store) -> None:
        await make(store, "ended", ended=True)
        await make(store, "open")
        await retention.change(store, Retention(100, 1_000))
        for id in ("ended", "open"):
            await retention.keep(store, id, Keep(5_000))
        await retention.change(store, Retention(200, 2_000))
        assert 4_900 < await self.kept_s(store, "ended") <= 5_000
        assert 1_900 < await self.kept_s(store, "open") <= 2_000
        await store.publish("open", [encode("end", {"status": "failed"}, store.settings)])
        assert 4_900 < await self.kept_s(store, "open") <= 5_000
        expires = (await store.get("open")).expires_at
        assert expires is not None
        assert expires.timestamp() - (await store.now()).timestamp() > 4_900
        for id in ("ended", "open"):
            await retention.keep(store, id, None)
            assert 100 < await self.kept_s(store, id) <= 200

    async def test_pinned_is_ten_years_also_without_events(self, store: Store) -> None:
        await make(store, "a")
        await retention.keep(store, "a", PINNED)
        await retention.change(store, Retention(1, 1))
        assert await self.kept_s(store, "a") > 9 * 365 * 86_400
        await retention.keep(store, "a", Keep(60))
        assert await self.kept_s(store, "a") <= 1

    async def test_of_nothing(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await retention.keep(store, "none", PINNED)


class TestJobs:
    async def ended(self, store: Store, id: str) -> Operation:
        async def has_ended() -> bool:
            return (await store.get(id)).done

        await eventually(has_ended, "the job ends")
        return await store.get(id)

    async def test_a_job_is_an_operation(self, store: Store) -> None:
        ids = [f"o{number}" for number in range(60)]
        await make(store, *ids, ended=True)
        verb = verbs.delete(store)
        async with Jobs(store) as jobs:
            job = await jobs.start(verb, groups_of([*ids, "none"]), number=61, owner="ann", away=set())
            assert (job.kind, job.owner, job.title) == ("bulk-delete", "ann", "delete 61 operations")
            done = await self.ended(store, job.id)
        assert done.status == "succeeded"
        assert done.result == {"changed": 60, "skipped": 1, "failed": 0}
        assert done.progress is not None
        assert (done.progress["current"], done.progress["total"]) == (61, 61)

    async def test_a_job_is_cancelled_like_any_operation(self, store: Store) -> None:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def groups() -> AsyncIterator[Sequence[str]]:
            yield ["a"]
            started.set()
            await go_on.wait()
            yield ["b"]
            raise AssertionError("it goes on")

        await make(store, "a", "b", ended=True)
        async with Jobs(store) as jobs:
            job = await jobs.start(verbs.delete(store), groups(), number=2, owner=None, away=set())
            await started.wait()
            await store.cancel(job.id)
            go_on.set()
            assert (await self.ended(store, job.id)).status == "cancelled"

    async def test_a_job_says_what_failed_and_what_was_left_out(self, store: Store) -> None:
        await make(store, "a")
        async with Jobs(store) as jobs:
            job = await jobs.start(verbs.delete(store), groups_of(["a"]), number=1, owner=None, away={3})
            done = await self.ended(store, job.id)
        assert done.error is not None
        assert (done.error["type"], "lane 3" in done.error["message"]) == ("partial", True)
        assert done.result is None or done.result["failed"] == 1

    async def test_a_job_ends_as_failed_with_its_server(self, store: Store) -> None:
        started = asyncio.Event()

        async def groups() -> AsyncIterator[Sequence[str]]:
            started.set()
            await asyncio.Event().wait()
            yield []

        async with Jobs(store) as jobs:
            job = await jobs.start(verbs.delete(store), groups(), number=1, owner=None, away=set())
            await started.wait()
        failed = await store.get(job.id)
        assert failed.error is not None
        assert failed.error["type"] == "server-stopped"
