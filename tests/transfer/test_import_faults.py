"""Imports that are cut short, rejected, repeated or beside others: an operation is there whole, or not at all."""

import os
import random

import pytest

from progress_broker.errors import Conflict, NotFound, OperationExists
from progress_broker.history import event_log
from progress_broker.hub import Hub
from progress_broker.model.operation import NewOperation, Status
from progress_broker.model.position import START
from progress_broker.nodes.calls import Call
from progress_broker.operations import retention
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.storage.scripts import STAGE
from progress_broker.stream.delivery import Start
from progress_broker.transfer.endpoints import ImportOptions, OnConflict, Result, Unfinished
from progress_broker.transfer.files.reader import DamagedExport
from progress_broker.transfer.format import ExportedOperation
from progress_broker.transfer.redis.staging import Staging
from progress_broker.transfer.redis.target import RedisTarget
from tests.broker.harness import Outlet
from tests.keyspace import keys_of_all
from tests.servers import eventually
from tests.topologies.kinds import ALL_BACKENDS
from tests.transfer.aging import edited, older
from tests.transfer.exports import (
    export,
    forget_all,
    import_into,
    listed,
    moved_fleet,
    parts_of,
    results,
    source_of,
)
from tests.transfer.fleet import ENDED, SUCCEEDED, UNFINISHED, make_fleet, publish

CUTS = 100 if ALL_BACKENDS in os.environ else 25


async def test_a_stream_that_is_cut_anywhere_leaves_operations_whole_or_absent(store: Store) -> None:
    await make_fleet(store)
    text = await export(store, Filters(ids=ENDED))
    digests = digests_of(text)
    chosen = random.Random(17)  # the same cuts each time
    for cut in sorted(chosen.sample(range(len(text) - 1), CUTS)):
        await forget_all(store)
        with pytest.raises(DamagedExport):
            await import_into(store, text[:cut])
        assert digests_of(await export(store)).items() <= digests.items()
        assert not [key for key in await keys_of_all(store.connections) if b":import:" in key]
    outcomes = await import_into(store, text)
    assert {outcome.result for outcome in outcomes} <= {Result.STORED, Result.SKIPPED}
    assert digests_of(await export(store)) == digests


def digests_of(text: bytes) -> dict[str, str]:
    return {part.id: part.sha256 for part in parts_of(text) if type(part).__name__ == "OperationEnd"}


class TestConflicts:
    async def test_a_tombstone_keeps_its_id_unless_it_is_replaced(self, store: Store) -> None:
        await make_fleet(store)
        text = await export(store, Filters(ids=("short",)))
        await store.delete("short")
        assert results(await import_into(store, text)) == {"short": Result.CONFLICT}
        replaced = await import_into(store, text, on_conflict=OnConflict.REPLACE)
        assert results(replaced) == {"short": Result.REPLACED}
        assert (await store.get("short")).status is Status.SUCCEEDED

    async def test_the_same_operation_with_other_events_is_another_one(self, store: Store) -> None:
        await make_fleet(store)
        text = await export(store, Filters(ids=("failed",)))
        keys = store.keyspace.operation("failed")
        [(position, _)] = await store.connections.commands.xrange(keys.log, count=1)
        await store.connections.commands.xdel(keys.log, position)
        [outcome] = await import_into(store, text)
        assert (outcome.result, outcome.why) == (Result.CONFLICT, "it is there with other events")
        [outcome] = await import_into(store, text, on_conflict=OnConflict.REPLACE)
        assert outcome.result is Result.REPLACED
        [outcome] = await import_into(store, text)
        assert outcome.result is Result.SKIPPED


async def test_one_that_has_not_ended_is_ended_if_that_is_chosen(store: Store) -> None:
    text = await moved_fleet(store)
    for result in (Result.STORED, Result.SKIPPED):
        found = results(await import_into(store, text, unfinished=Unfinished.END))
        assert set(found.values()) == {result}
    running = await store.get("running")
    assert (running.status, running.error and running.error["type"]) == (Status.FAILED, "moved")
    page = await event_log.after(store, "running", START, 1_000)
    assert [event.n for event in page.events] == list(range(1, running.events + 1))
    assert page.events[-1].type == b"end"


async def test_a_dry_run_says_what_would_come_of_it_and_changes_nothing(store: Store) -> None:
    text = await moved_fleet(store)
    before = sorted(await keys_of_all(store.connections))
    found = results(await import_into(store, text, dry_run=True))
    assert {found[id] for id in ENDED} == {Result.STORED}
    assert {found[id] for id in UNFINISHED} == {Result.REFUSED}
    assert sorted(await keys_of_all(store.connections)) == before
    with pytest.raises(DamagedExport):
        await import_into(store, text[:-100], dry_run=True)


async def test_partial_takes_the_operations_that_are_whole(store: Store) -> None:
    await make_fleet(store)
    text = await export(store, Filters(ids=("short", "failed", "long")))
    lines = text.split(b"\n")
    damaged = next(at for at, line in enumerate(lines) if b'"message": "line 150"' in line)
    lines[damaged] = lines[damaged].replace(b"150", b"151")
    await forget_all(store)
    source = source_of(b"\n".join(lines[:-2]), partial=True)
    outcomes = [outcome async for outcome in RedisTarget(store).store(source, ImportOptions())]
    assert results(outcomes) == {"short": Result.STORED, "failed": Result.STORED, "long": Result.REFUSED}
    assert len(source.damage) == 2
    with pytest.raises(NotFound):
        await store.get("long")


async def test_it_is_kept_from_the_import_on(store: Store) -> None:
    """However long ago it ended; also when the retention is changed later."""
    await make_fleet(store)
    text = await export(store, Filters(ids=("short", "failed", "pending")))
    text = await aged(store, text)
    outcomes = await import_into(store, text, unfinished=Unfinished.KEEP)
    assert set(results(outcomes).values()) == {Result.STORED}, outcomes
    for policy in (None, retention.Retention(7200, 7200)):
        if policy is not None:
            await retention.change(store, policy)
        for id, kept_s in (("short", 86_400 if policy is None else 7200), ("failed", 600)):
            operation = await store.get(id)
            assert operation.finished_at is not None
            assert operation.expires_at is not None
            age_s = ((await store.now()) - operation.finished_at).total_seconds()
            assert age_s > 86_400
            assert 0 < (operation.expires_at - await store.now()).total_seconds() <= kept_s
            ttl_ms = await store.connections.commands.pttl(store.keyspace.operation(id).log)
            assert (kept_s - 60) * 1000 < ttl_ms <= kept_s * 1000
    assert not await store.upkeep.sweep()


async def aged(store: Store, text: bytes) -> bytes:
    """Return an export, three days older; and empty Redis."""
    await forget_all(store)
    return older(text, 3 * 86_400_000)


async def test_what_can_not_be_stored_is_refused_and_leaves_nothing(store: Store) -> None:
    await make_fleet(store)
    text = await export(store, Filters(ids=("short",)))
    await forget_all(store)
    for change, why in (
        (lambda line: line.replace(b'"kind:import\\n', b'"order:created\\n'), "is no index"),
        (lambda line: line.replace(b'"status":"succeeded","attempt"', b'"status":"lost","attempt"'), "not valid"),
        (lambda line: line.replace(b'"spec":{', b'"spec":[{').replace(b'},"created_m', b'}],"created_m'), "not valid"),
    ):
        [outcome] = await import_into(store, edited(text, change))
        assert outcome.result is Result.REFUSED
        assert why in outcome.why
    [outcome] = await import_into(store, older(text, -3 * 86_400_000))
    assert (outcome.result, "more than a day ahead" in outcome.why) == (Result.REFUSED, True)
    assert await listed(store) == set()
    assert not [key for key in await keys_of_all(store.connections) if b":import:" in key]


async def test_two_imports_of_one_operation_do_not_mix(store: Store) -> None:
    await make_fleet(store)
    text = await export(store, Filters(ids=("long",)))
    [operation] = [part for part in parts_of(text) if isinstance(part, ExportedOperation)]
    await forget_all(store)
    other = Staging(store, "long", int(operation.fields[b"archived"]))
    events = [event for part in parts_of(text) if isinstance(part, list) for event in part]
    await other.add(events[:230])
    await other.sent()
    [outcome] = await import_into(store, text)
    assert (outcome.result, outcome.why) == (Result.CONFLICT, "another import of this operation is going on")
    left = [await store.connections.commands.pttl(key) for key in store.keyspace.staging("long").all]
    assert sum(ms > 0 for ms in left) > 1, "what an import that was killed leaves goes by itself"
    assert -1 not in left
    await store.connections.commands.delete(store.keyspace.staging("long").name)  # as if it had taken too long
    await other.add(events[230:240])
    with pytest.raises(Conflict, match="interrupted for so long"):
        await other.adopt(operation.fields, replace=False)
    await other.drop()
    assert results(await import_into(store, text)) == {"long": Result.STORED}


async def test_an_id_that_is_created_at_the_same_moment_is_not_overwritten(store: Store) -> None:
    await make_fleet(store)
    text = await export(store, Filters(ids=("short",)))
    await forget_all(store)
    [operation] = [part for part in parts_of(text) if isinstance(part, ExportedOperation)]
    staging = Staging(store, "short", 0)
    await staging.add([event for part in parts_of(text) if isinstance(part, list) for event in part])
    await store.create(NewOperation(id="short", kind="new"))
    with pytest.raises(OperationExists, match="there is another operation short"):
        await staging.adopt(operation.fields, replace=False)
    await staging.drop()
    assert (await store.get("short")).kind == "new"


async def test_the_script_rejects_arguments_that_it_does_not_know(store: Store) -> None:
    keys = store.keyspace.staging("a").all
    for args in (
        ("name", "x"),
        ("name", "1000", "BEGIN", "EVENT", "5", "1-1", "1", "n"),
        ("name", "1000", "BEGIN", "X"),
    ):
        assert (await store.connections.scripts.run(Call(STAGE, keys, args)))[0] == b"invalid"
    bad = ("name", "1000", "BEGIN", "EVENT", "2", "2-1", "2", "n", "1", "EVENT", "2", "1-1", "2", "n", "2")
    code, why = await store.connections.scripts.run(Call(STAGE, keys, bad))
    assert (code, b"not after the one before" in why) == (b"invalid", True)
    assert not [key for key in await keys_of_all(store.connections) if b":import:" in key]


async def test_who_watches_an_operation_that_is_replaced_is_told_at_once(store: Store) -> None:
    """Not only when a replica compares what it has with Redis, which it does every few seconds."""
    settings = store.settings.model_copy(update={"sweep_interval_s": 3_600})
    await store.create(NewOperation(id="a", kind="before"))
    await publish(store, "a", *range(1, 5))
    await store.publish("a", [SUCCEEDED])
    text = older(await export(store), 86_400_000)
    await store.delete("a")
    await forget_all(store)
    await store.create(NewOperation(id="a", kind="another"))
    await publish(store, "a", 1)
    async with Hub(store, settings) as hub:
        await hub.started()
        subscription = await hub.subscribe("a", Start(beginning=True))
        outlet = Outlet(subscription)
        subscription.attach(outlet)
        await eventually(lambda: outlet.numbers[-1:] == [4], "it has all events of the first one")
        [outcome] = await import_into(store, text, on_conflict=OnConflict.REPLACE)
        assert outcome.result is Result.REPLACED
        await eventually(lambda: outlet.closed, "it has the end of the other one")
    assert any(b'"reset":"lost"' in frame.wire for frame in outlet.frames)
