"""Parents on both backends: they are notified of children, shown with their summary, and cancelled with them."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
import redis.exceptions

from progress_broker import errors
from progress_broker.history import event_log
from progress_broker.hub import Hub
from progress_broker.live.family import Family
from progress_broker.model.children import MAX_GENERATIONS, MAX_SHOWN
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import Children, ChildrenSummary, NewOperation, Operation, PublishResult, Status
from progress_broker.nodes.calls import Call
from progress_broker.operations import rollup
from progress_broker.operations.commands import create_call
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.storage.scripts import VERBS
from progress_broker.stream.delivery import Delivery, Start
from progress_broker.stream.frames import Frame
from tests.broker.harness import Outlet
from tests.servers import eventually


async def begin(store: Store, id: str, parent: str | None = None, percent: float | None = 0, weight: float = 1) -> None:
    await store.create(NewOperation(id=id, parent=parent, weight=weight))
    await report(store, id, {} if percent is None else {"percent": percent})


async def report(store: Store, id: str, progress: object) -> None:
    await store.publish(id, [encode("progress", progress, store.settings)])


async def end(store: Store, id: str, status: str = "succeeded") -> None:
    await store.publish(id, [encode("end", {"status": status}, store.settings)])


async def notes(store: Store, parent: str) -> list[Any]:
    return [orjson.loads(event.data) for event in await event_log.kept(store, parent, 1000) if event.type == b"child"]


def percent(operation: Operation) -> Any:
    return (operation.progress or {}).get("percent")


class TestNoting:
    async def test_a_parent_is_told_of_its_child_once(self, store: Store) -> None:
        await store.create(NewOperation(id="p"))
        for _ in range(2):
            await store.create(NewOperation(id="a", kind="part", title="Part A", parent="p", weight=3))
            await report(store, "a", {})
        assert await notes(store, "p") == [{"operation": "a", "kind": "part", "title": "Part A", "weight": 3}]
        now = await store.get("p")
        assert (now.status, now.events) == (Status.PENDING, 2)

    async def test_whoever_died_before_the_note_sends_it_by_creating_again(self, store: Store) -> None:
        await store.create(NewOperation(id="p"))
        child = NewOperation(id="a", parent="p")
        await store.connections.scripts.run(create_call("a", store.keyspace.operation("a"), child, store.settings))
        assert await notes(store, "p") == []
        await store.create(child)
        assert [note["operation"] for note in await notes(store, "p")] == ["a"]

    @pytest.mark.parametrize("fate", ["never", "ended", "deleted", "itself"])
    async def test_a_parent_that_is_not_there_is_a_label(self, store: Store, fate: str) -> None:
        parent = "a" if fate == "itself" else "p"
        if fate in ("ended", "deleted"):
            await store.create(NewOperation(id="p"))
            await end(store, "p")
        if fate == "deleted":
            await store.delete("p")
        operation, new = await store.create(NewOperation(id="a", parent=parent))
        assert new
        assert (operation.status, operation.parent, operation.children) == (Status.PENDING, parent, None)

    async def test_a_note_is_no_sign_of_life_from_the_parent_s_worker(self, store: Store) -> None:
        await begin(store, "p")
        keys = store.keyspace.operation("p")
        await store.connections.commands.zadd(keys.lane.leases, {"p": 1})
        stalled = NewEvent("status", b'{"status":"stalled"}', "stalled")
        await store.publish("p", [stalled], lease_expired=True, expect="running")
        await store.create(NewOperation(id="a", parent="p"))
        assert (await store.get("p")).status is Status.STALLED

    async def test_nobody_else_may_tell_of_children(self, store: Store) -> None:
        for type in ("child", "children"):
            with pytest.raises(errors.InvalidInput):
                encode(type, {"operation": "a"}, store.settings)


class TestRollingUp:
    async def test_a_parent_shows_what_its_children_add_up_to(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        await begin(store, "a", "p", 50, weight=3)
        await begin(store, "b", "p", 10)
        await store.create(NewOperation(id="c", parent="p", weight=4))
        await end(store, "b", "failed")
        now = await store.get("p")
        assert now.children == ChildrenSummary(total=3, done=1, failed=1, cancelled=0, running=1, percent=20)
        assert now.progress == {"percent": 20, "rolled_up": True}
        assert (await store.get("a")).children is None

    async def test_a_listing_shows_the_same(self, store: Store) -> None:
        for parent, reached in (("p", 30), ("q", 60)):
            await begin(store, parent, percent=None)
            await begin(store, f"{parent}1", parent, reached)
        await begin(store, "alone", percent=5)
        found, *_ = await find_page(store, Filters())
        assert {it.id: percent(it) for it in found} == {"p": 30, "q": 60, "p1": 30, "q1": 60, "alone": 5}
        assert all([it == await store.get(it.id) for it in found])

    async def test_a_listing_without_parents_asks_nothing_more(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await begin(store, "alone", percent=5)
        run_all, asked = store.connections.scripts.run_all, set[str]()

        async def noted(calls: Sequence[Call]) -> list[Any]:
            asked.update(VERBS[call.script.sha] for call in calls)
            return await run_all(calls)

        monkeypatch.setattr(store.connections.scripts, "run_all", noted)
        assert len((await find_page(store, Filters())).operations) == 1
        assert asked == {"walk"}

    async def test_what_the_parent_says_itself_counts(self, store: Store) -> None:
        await begin(store, "p", percent=75)
        await begin(store, "a", "p", 10)
        now = await store.get("p")
        assert now.progress == {"percent": 75}
        assert now.children is not None
        assert now.children.percent == 10

    async def test_a_parent_that_succeeded_is_whole(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        await begin(store, "a", "p", 10)
        await end(store, "p")
        assert percent(await store.get("p")) == 100

    async def test_grandchildren_count_where_a_child_does_not_tell(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        for id, told in (("silent", None), ("telling", 80)):
            await begin(store, id, "p", told)
            await begin(store, f"{id}-1", id, 40)
        assert percent(await store.get("p")) == 60
        tree = await store.family("p")
        assert tree.children.keys() == {"silent", "telling", "silent-1"}

    async def test_depth_is_bounded(self, store: Store) -> None:
        await begin(store, "g0", percent=None)
        for depth in range(1, MAX_GENERATIONS + 3):
            await begin(store, f"g{depth}", f"g{depth - 1}", percent=None)
        assert len((await store.family("g0")).children) == MAX_GENERATIONS

    async def test_operations_that_are_each_other_s_parents_are_shown(self, store: Store) -> None:
        for id, parent in (("x", "z"), ("y", "x"), ("z", "y"), ("x2", "x")):
            await begin(store, id, parent, percent=None)
        await store.create(NewOperation(id="w", parent="z"))  # so that all three have a child
        for id in ("x", "y", "z"):
            now = await store.get(id)
            assert (percent(now), now.children is None) == (0, False)

    async def test_a_child_that_is_gone_does_not_count(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        for id in ("a", "b"):
            await begin(store, id, "p", 30)
        await store.delete("a", force=True)
        assert (await store.get("p")).children == ChildrenSummary(
            total=1, done=0, failed=0, cancelled=0, running=1, percent=30
        )
        await store.connections.commands.delete(store.keyspace.operation("b").snapshot)  # expired, and not swept yet
        assert (await store.get("p")).children is None

    async def test_a_child_older_than_its_parent_has_it_as_a_label(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        for id, parent in (("a", "p"), ("old", "p"), ("a1", "a"), ("old1", "a")):
            await begin(store, id, parent, None if id == "a" else 30)
        for id in ("old", "old1"):
            await store.connections.commands.hset(store.keyspace.operation(id).snapshot, "created", "1")
        assert (await store.family("p")).children.keys() == {"a", "a1"}
        for operation in (await store.get("p"), await store.get("a")):
            assert operation.children is not None
            assert operation.children.total == 1
        await store.cancel("p")
        found = {id: (await store.get(id)).status.value for id in ("a", "old", "a1", "old1")}
        assert found == {"a": "cancelling", "old": "running", "a1": "cancelling", "old1": "running"}

    async def test_what_foreign_hands_made_of_children_does_not_hide_the_parent(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        redis, keys = store.connections.commands, store.keyspace
        for id in ("a", "b", "c", "d"):
            await begin(store, id, "p", 30)
        await redis.hset(keys.operation("a").snapshot, mapping={"status": "odd"})
        await redis.hset(keys.operation("b").snapshot, mapping={"progress": b"\xff", "spec": "[]", "created": "x"})
        await redis.delete(keys.operation("c").snapshot)
        await redis.set(keys.operation("c").snapshot, "not a hash", ex=60)
        now = await store.get("p")
        assert now.children is not None
        assert (now.children.total, now.children.percent) == (1, 30)
        await redis.delete(keys.operation("c").snapshot)

    async def test_of_very_many_children_some_are_looked_at(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await begin(store, "p", percent=None)
        for number in range(160):
            await begin(store, f"c{number}", "p", 100 if number < 80 else 0)
        monkeypatch.setattr(rollup, "MAX_READ", 32)
        tree, now = await store.family("p"), await store.get("p")
        assert not tree.whole
        assert len(tree.children) <= 32 + store.keyspace.lanes
        assert now.children is not None
        assert (now.children.total, now.children.running) == (160, 160)
        assert 25 < now.children.percent < 75

    async def test_a_server_that_forgot_its_scripts_is_told_again(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        await begin(store, "a", "p", 30)
        for master in await store.connections.masters():
            await master.script_flush()
        assert percent(await store.get("p")) == 30

    async def test_the_first_children_are_listed_on_request(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        await begin(store, "a", "p", percent=None)
        await begin(store, "b", "p", 30)
        await begin(store, "a1", "a", 70)
        now = await store.get("p", list_children=True)
        assert isinstance(now.children, Children)
        assert now.children.operations == [await store.get("a"), await store.get("b")]
        assert percent(now.children.operations[0]) == 70
        assert (await store.get("b", list_children=True)).children is None

    async def test_a_long_list_is_cut(self, store: Store) -> None:
        await begin(store, "p", percent=None)
        for number in range(MAX_SHOWN + 10):
            await store.create(NewOperation(id=f"c{number}", parent="p"))
        now = await store.get("p", list_children=True)
        assert isinstance(now.children, Children)
        assert (now.children.total, len(now.children.operations)) == (MAX_SHOWN + 10, MAX_SHOWN)


class TestWatching:
    async def test_a_fault_in_a_family_costs_no_stream(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        await begin(store, "p", percent=None)
        await begin(store, "a", "p", 10)
        async with Hub(store, store.settings) as hub:
            await hub.started()
            subscriptions = [await hub.subscribe(id, Start(), Delivery(children=id == "p")) for id in ("p", "a")]
            outlets = [Outlet(it) for it in subscriptions]
            for subscription, outlet in zip(subscriptions, outlets, strict=True):
                subscription.attach(outlet)
            await eventually(lambda: "children" in outlets[0].types, "it is told")
            monkeypatch.setattr(Family, "apply", None)
            await end(store, "a")
            await eventually(lambda: outlets[1].closed, "the other's stream ends")
            await eventually(lambda: outlets[0].types.count("children") > 1, "it is read again")
            assert not outlets[0].aborted

    async def test_one_whose_outlet_breaks_is_cut_off_and_others_are_told(self, store: Store) -> None:
        class Broken(Outlet):
            def write(self, frames: Sequence[Frame]) -> None:
                if frames[0].type == b"children":
                    raise RuntimeError("gone")
                super().write(frames)

        await begin(store, "p", percent=None)
        async with Hub(store, store.settings) as hub:
            await hub.started()
            subscriptions = [await hub.subscribe("p", Start(), Delivery(children=True)) for _ in range(3)]
            outlets = [kind(it) for kind, it in zip((Outlet, Broken, Outlet), subscriptions, strict=True)]
            for subscription, outlet in zip(subscriptions, outlets, strict=True):
                subscription.attach(outlet)
            await begin(store, "a", "p", 30)
            await eventually(lambda: all("children" in it.types for it in (outlets[0], outlets[2])), "they are told")
            assert outlets[1].aborted
            assert len(hub) == 2
            await end(store, "p")
            await eventually(lambda: all(it.closed for it in outlets), "it ends for them")
            assert (len(hub.channels), len(hub.families), len(hub.wheel)) == (0, 0, 0)


class TestCancelling:
    async def test_a_child_of_one_that_was_asked_to_stop_is_cancelled_at_once(self, store: Store) -> None:
        await begin(store, "p")
        await store.cancel("p", reason="enough", by="bob")
        operation, new = await store.create(NewOperation(id="a", parent="p"))
        assert (operation.status, new) == (Status.CANCELLED, True)
        assert operation.error == {"type": "cancelled", "message": "enough", "by": "bob"}

    @pytest.mark.parametrize("how", ["pending", "force", "worker"])
    async def test_so_is_that_of_one_that_was_cancelled(self, store: Store, how: str) -> None:
        if how == "pending":
            await store.create(NewOperation(id="p"))
        else:
            await begin(store, "p")
        await store.cancel("p", force=how == "force")
        if how == "worker":
            await end(store, "p", "cancelled")
        assert (await store.create(NewOperation(id="a", parent="p")))[0].status is Status.CANCELLED

    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("how", ["ask", "force", "worker ends it"])
    async def test_none_that_is_created_meanwhile_is_lost(self, store: Store, how: str, seed: int) -> None:
        chance = random.Random(seed)
        await begin(store, "p")

        async def create(number: int) -> None:
            await asyncio.sleep(chance.uniform(0, 0.05))
            await store.create(NewOperation(id=f"c{number}", parent="p"))

        async def cancel() -> None:
            await asyncio.sleep(chance.uniform(0, 0.05))
            await store.cancel("p", reason="enough", force=how == "force")
            if how == "worker ends it":
                await end(store, "p", "cancelled")

        await asyncio.gather(cancel(), *(create(number) for number in range(60)))
        found = [(await store.get(f"c{number}")).status for number in range(60)]
        assert set(found) == {Status.CANCELLED}

    async def test_children_that_change_while_they_are_counted_are_not_missed(self, store: Store) -> None:
        await begin(store, "p")
        ids = [f"c{number}" for number in range(230)]  # more than a page of a listing, whose order changes
        for id in ids:
            await begin(store, id, "p")
        stop = asyncio.Event()

        async def report_on() -> None:
            while not stop.is_set():
                for id in ids[::7]:
                    await report(store, id, {"percent": 1})

        reporting = asyncio.create_task(report_on())
        await store.cancel("p")
        stop.set()
        await reporting
        assert {(await store.get(id)).status for id in ids} == {Status.CANCELLING}

    async def test_one_that_is_gone_does_not_keep_the_others(self, store: Store) -> None:
        await begin(store, "p")
        for id in ("a", "b", "c"):
            await begin(store, id, "p")
        await store.connections.commands.delete(store.keyspace.operation("a").snapshot)
        await store.cancel("p")
        assert {(await store.get(id)).status for id in ("b", "c")} == {Status.CANCELLING}

    @pytest.mark.parametrize("fault", ["unreadable", "too fast"])
    async def test_one_that_can_t_be_cancelled_does_not_keep_the_others(
        self, store: Store, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await begin(store, "p")
        for id, parent in (("a", "p"), ("b", "p"), ("c", "p"), ("b1", "b")):
            await begin(store, id, parent)
        key, publish = store.keyspace.operation("b").snapshot, store.publish

        async def rejected(operation: str, *args: Any, **more: Any) -> PublishResult:
            if operation == "b":
                raise errors.Conflict("it has changed")
            return await publish(operation, *args, **more)

        if fault == "unreadable":
            await store.connections.commands.delete(key)
            await store.connections.commands.set(key, "not a hash", ex=60)
        else:
            monkeypatch.setattr(store, "publish", rejected)
            each = store.publish_each

            async def some(entries: Any) -> list[bool]:
                stored = dict(zip(ids := [id for id, *_ in entries], [False] * len(ids), strict=True))
                stored |= dict.fromkeys([id for id in ids if id != "b"], True)
                await each([entry for entry in entries if entry[0] != "b"])
                return list(stored.values())

            monkeypatch.setattr(store, "publish_each", some)
        with pytest.raises((errors.StorageUnavailable, redis.exceptions.ResponseError)):
            await store.cancel("p")
        assert {(await store.get(id)).status for id in ("p", "a", "c", "b1")} == {Status.CANCELLING}
        await store.connections.commands.delete(key)

    async def test_where_redis_is_away_it_ends_there(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        await begin(store, "p")
        for id in ("a", "b"):
            await begin(store, id, "p")
        asked = 0

        async def away(_: Any) -> list[bool]:
            nonlocal asked
            asked += 1
            raise errors.StorageUnavailable("away")

        monkeypatch.setattr(store, "publish_each", away)
        with pytest.raises(errors.StorageUnavailable):
            await store.cancel("p")
        assert asked == 1
