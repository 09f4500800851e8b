"""An operation that is imported is the same as it was, whole or not there at all."""

from progress_broker.history import event_log
from progress_broker.model.operation import NewOperation, Status
from progress_broker.model.position import START
from progress_broker.operations.store import Store
from progress_broker.transfer.endpoints import OnConflict, Positions, Result, Unfinished
from progress_broker.transfer.format import ExportedOperation
from tests.transfer.exports import export, forget_all, import_into, listed, moved_fleet, parts_of, results, shown
from tests.transfer.fleet import ENDED, SUCCEEDED, UNFINISHED, make_fleet, publish, told


async def test_a_round_trip_changes_nothing(store: Store) -> None:
    await make_fleet(store)
    before = {id: await store.get(id, list_children=True) for id in (*ENDED, *UNFINISHED)}
    logs = {id: await event_log.kept(store, id, 10_000) for id in before}
    text = await export(store)
    await forget_all(store)
    outcomes = await import_into(store, text, unfinished=Unfinished.KEEP)
    assert set(results(outcomes).values()) == {Result.STORED}, outcomes
    assert sorted(text.split(b"\n")[1:]) == sorted((await export(store)).split(b"\n")[1:])
    for id, operation in before.items():
        assert shown(await store.get(id, list_children=True)) == shown(operation)
        assert await event_log.kept(store, id, 10_000) == logs[id]
    assert await listed(store) == set(before)
    assert await listed(store, metadata=("customer=43",)) == {"short"} == await listed(store, tags=("eu", "x"))
    assert await listed(store, parent="parent") == {"child-1", "child-2"}
    assert await listed(store, statuses=frozenset({Status.PENDING})) == {"pending"}
    again = await import_into(store, text, unfinished=Unfinished.KEEP)
    assert set(results(again).values()) == {Result.SKIPPED}


async def test_who_has_a_position_of_the_source_resumes_at_the_target(store: Store) -> None:
    await make_fleet(store)
    positions = [START]
    pages = {}
    for id in ("long", "short"):
        positions += [event.position.decode() for event in await event_log.kept(store, id, 10_000)][::9]
        for position in (*positions, "1-1"):
            pages[id, position] = await event_log.after(store, id, position, 2_000)
    text = await export(store)
    await forget_all(store)
    await import_into(store, text)
    assert len([page for page in pages.values() if page.reset is None]) > 15
    for (id, position), page in pages.items():
        assert await event_log.after(store, id, position, 2_000) == page


async def test_work_goes_on_where_it_was(store: Store) -> None:
    """What a worker sends again is known, and new events follow the old ones, also those that are moved later."""
    text = await moved_fleet(store)
    await import_into(store, text, unfinished=Unfinished.KEEP)
    assert not await store.upkeep.expired_leases()
    before = await store.get("running")
    assert (await store.publish("running", told(29))).events == before.events
    await publish(store, "running", *range(30, 150))
    await store.publish("running", [SUCCEEDED])
    page = await event_log.after(store, "running", before.position, 10_000)
    assert page.reset is None
    assert page.events[0].n == before.events + 1
    assert len(await event_log.kept(store, "running", 10_000)) > 200


async def test_each_way_to_meet_another_operation(store: Store) -> None:
    text = await moved_fleet(store)
    parts = [part for part in parts_of(text) if isinstance(part, ExportedOperation)]
    assert {part.id for part in parts} == {*ENDED, *UNFINISHED}
    await store.create(NewOperation(id="parent", kind="other"))
    await publish(store, "parent", 1)
    other = shown(await store.get("parent"))
    found = results(await import_into(store, text))
    assert found.pop("parent") is Result.CONFLICT
    assert {found.pop(id) for id in UNFINISHED} == {Result.REFUSED}
    assert set(found.values()) == {Result.STORED}
    assert results(await import_into(store, text, on_conflict=OnConflict.SKIP))["parent"] is Result.SKIPPED
    assert shown(await store.get("parent")) == other

    found = results(await import_into(store, text, suffix="-2"))
    assert {found[f"{id}-2"] for id in ENDED} == {Result.STORED}
    assert await listed(store, parent="parent-2") == {"child-1-2", "child-2-2"}
    assert await listed(store, parent="parent") == {"child-1", "child-2"}
    again = results(await import_into(store, text, suffix="-2"))
    assert {again[f"{id}-2"] for id in ENDED} == {Result.SKIPPED}

    replaced = await import_into(store, text, on_conflict=OnConflict.REPLACE)
    assert results(replaced)["parent"] is Result.REPLACED
    assert (await store.get("parent")).kind != "other"
    assert await listed(store, kinds=("other",)) == set()


async def test_with_new_positions_events_are_published_again(store: Store) -> None:
    text = await moved_fleet(store)
    for result in (Result.STORED, Result.SKIPPED):
        found = results(await import_into(store, text, positions=Positions.NEW, unfinished=Unfinished.END))
        assert set(found.values()) == {result}, found
    short, cancelled = await store.get("short"), await store.get("cancelled")
    assert short.tags == ["eu", "x", "replay_of:short"]
    assert (short.metadata, short.result) == ({"customer": 43, "note": "ö"}, {"rows": 1000})
    assert cancelled.status is Status.CANCELLED
    events = await event_log.kept(store, "long", 10_000)
    assert [event.n for event in events][:1] == [1]
    [source] = [part for part in parts_of(text) if isinstance(part, ExportedOperation) and part.id == "long"]
    assert events[0].position > source.position
    assert (await store.get("running")).error is not None
