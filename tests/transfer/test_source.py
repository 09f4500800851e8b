"""What is read out of Redis is all that is kept of an operation, as of one moment."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from progress_broker.errors import Gone, NotFound
from progress_broker.history import event_log
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.files.reader import ExportReader
from progress_broker.transfer.format import ExportedEvent, ExportedOperation
from progress_broker.transfer.redis.source import RedisSource, read_one
from tests.transfer.exports import ALL, export, parts_of
from tests.transfer.fleet import publish

END = NewEvent("end", b'{"status":"succeeded"}', "succeeded")


def by_operation(parts: list[Any]) -> dict[str, tuple[ExportedOperation, list[ExportedEvent]]]:
    found: dict[str, tuple[ExportedOperation, list[ExportedEvent]]] = {}
    last = ""
    for part in parts:
        if isinstance(part, ExportedOperation):
            last = part.id
            found[last] = part, []
        elif isinstance(part, list):
            found[last][1].extend(part)
    return found


async def test_all_that_is_kept_is_exported_in_the_order_of_its_numbers(store: Store) -> None:
    new = NewOperation(
        id="long", kind="job", owner="ann", tags=["eu"], metadata={"customer": 42}, history_length=100, lease_s=30
    )
    await store.create(new)
    await store.create(NewOperation(id="part", parent="long"))
    await publish(store, "long", *range(1, 900))
    await store.publish("long", [encode("metadata", {"customer": 43}, store.settings)])
    await store.signal("long", NewSignal(type="pause"))
    await store.publish("long", [END])
    found = by_operation(parts_of(await export(store)))
    assert found.keys() == {"long", "part"}
    operation, events = found["long"]
    kept = await event_log.kept(store, "long", 10_000)
    assert [(event.n, event.position, event.type, event.data) for event in events] == [
        (event.n, event.position, event.type, event.data) for event in kept
    ]
    assert len(events) > 250
    assert (events[-2].type, events[-1].type, events[-1].n) == (b"metadata", b"end", operation.n)
    ns = [event.n for event in events]
    assert ns == sorted(set(ns))
    assert ns[ns.index(operation.first_n) :] == list(range(operation.first_n, operation.n + 1))
    assert operation.first_n == int(operation.fields[b"archived"]) + 1
    assert {event.seq for event in events if event.type == b"log"} > {b"1799"}
    assert operation.fields[b"producer:worker"].startswith(b"1799 ")
    assert operation.indexes == b"kind:job\nowner:ann\ntag:eu\nmetadata:customer=42\n\nmetadata:customer=43"
    assert b"expires" not in operation.fields
    assert json.loads(operation.fields[b"spec"])["kind"] == "job"


async def test_filters_choose_and_the_head_tells_them(store: Store) -> None:
    for n in range(30):
        await store.create(NewOperation(id=f"a{n}", kind="import" if n % 3 else "job"))
    parts = parts_of(await export(store, Filters(kinds=("import",))))
    assert parts[0].query == {"kind": ["import"]}
    assert by_operation(parts).keys() == {f"a{n}" for n in range(30) if n % 3}
    assert by_operation(parts_of(await export(store, Filters(ids=("a1", "nobody"))))).keys() == {"a1"}
    with pytest.raises(NotFound):
        await read_one(store, "nobody")


async def test_an_operation_that_goes_on_is_exported_as_it_was_at_one_moment(store: Store) -> None:
    """While it is read, its oldest events are moved, and new ones come."""
    await store.create(NewOperation(id="a", history_length=10))
    await publish(store, "a", *range(1, 200))
    number = 200
    for _ in range(5):
        copy = await read_one(store, "a")
        parts: list[ExportedEvent] = []
        async with aclosing(copy.events()) as events:
            async for part in events:
                parts += part
                await publish(store, "a", *range(number, number + 60))
                number += 60
        window = [event.n for event in parts if event.n >= copy.operation.first_n]
        assert window == list(range(copy.operation.first_n, copy.operation.n + 1))
        assert parts[-1].position == copy.operation.position


async def test_an_operation_that_is_deleted_meanwhile_is_left_out(store: Store) -> None:
    for id in ("a", "b"):
        await store.create(NewOperation(id=id))
        await publish(store, id, *range(1, 400))
        await store.publish(id, [END])
    copy = await read_one(store, "a")
    events = copy.events()
    assert len(await anext(events)) > 0
    await store.delete("a")
    with pytest.raises(Gone):
        async for _ in events:
            pass
    assert by_operation(parts_of(await export(store))).keys() == {"b"}


async def test_one_that_is_deleted_in_the_middle_of_an_export_is_taken_back(store: Store) -> None:
    for id in ("a", "b"):
        await store.create(NewOperation(id=id))
        await publish(store, id, *range(1, 400))
        await store.publish(id, [END])
    text, deleted = b"", False
    async for lines in export_lines(RedisSource(store, ALL)):
        text += lines
        if b'"k":"event"' in lines and not deleted:
            deleted = True
            await store.delete("a" if b'"id":"a"' in lines else "b")
            await asyncio.sleep(0)
    found = [*ExportReader().feed(text)]
    assert [part.operations for part in found[-1:]] == [1]
    assert text.count(b'"k":"void"') == 1
