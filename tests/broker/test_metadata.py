"""Metadata: the script `publish` changes it as the model does, and lists the operation by what it has now."""

import json
import random
from typing import Any

import pytest

from progress_broker.errors import InvalidInput, OperationEnded, OperationExists, TooLarge
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.grants import Action, Grants, granted
from progress_broker.model.metadata import MAX_INDEXED, MAX_METADATA_BYTES, indexed, merged
from progress_broker.model.operation import NewOperation, Status
from progress_broker.operations import index_search
from progress_broker.operations.snapshot import attributes_of
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from tests.keyspace import keys_of_all

KEYS = ("customer", "a", "B", "b.c_d-e", "ключ", 'quote"d', "back\\slash", "new\nline", "", "x" * 64, "y" * 65)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -7, 42, 2.5, 1e300, 2**53 + 1, -(2**63), "", "eu", "ü", "a=b", "a:b", "t\tb", 'q"', "b\\",
    "{}", "x" * 128, "x" * 129, "ü" * 65, "null", [], {}, [1, {"a": "]}"}], {"a": {"b": ['"', "\\", None]}}, "\u2028",
    "\x7f",
)  # fmt: skip


def spelled(value: Any, rng: random.Random) -> bytes:
    """Return JSON in one of the ways that publishers in other languages spell it."""
    return json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1))).encode()


async def listed(store: Store, operation: str) -> set[str]:
    """Return the values of metadata by which an operation is listed."""
    start = f"{store.keyspace.operation(operation).lane.index}:metadata:"
    keys = [key.decode() for key in await keys_of_all(store.connections)]
    return {
        key.removeprefix(start)
        for key in keys
        if key.startswith(start) and await store.connections.commands.zscore(key, operation) is not None
    }


async def test_the_script_changes_metadata_as_the_model_does_however_it_is_spelled(store: Store) -> None:
    rng = random.Random(15)
    created = {"customer": 42, "a": "created", "ключ": [], "float": 1.0}
    await store.create(NewOperation(id="x", metadata=created))
    now: dict[str, Any] = created
    for _ in range(120):
        changes = {key: rng.choice(VALUES) for key in rng.sample(KEYS, rng.randint(0, 6))}
        await store.publish("x", [NewEvent("metadata", spelled(changes, rng))])
        now = merged(now, changes)
        assert (await store.get("x")).metadata == now
        assert await listed(store, "x") == {*indexed(created), *indexed(now)}


async def test_as_many_values_are_searched_by_as_the_model_says(store: Store) -> None:
    many = {f"k{i:02}": i for i in range(MAX_INDEXED + 4)}
    await store.create(NewOperation(id="x", metadata={"k10": 10}))
    await store.publish("x", [encode("metadata", many, store.settings)])
    assert await listed(store, "x") == {f"k{i:02}={i}" for i in range(MAX_INDEXED)}


async def test_listings_find_operations_by_the_metadata_they_have_now(store: Store) -> None:
    await store.create(NewOperation(id="a", kind="k", metadata={"customer": 42, "phase": "queued"}))
    await store.create(NewOperation(id="b", kind="k", metadata={"customer": 42, "vip": True}))
    await store.create(NewOperation(id="c", kind="k", metadata={"customer": "42"}))

    async def found(*pairs: str, **filters: Any) -> set[str]:
        return {it.id for it in (await find_page(store, Filters(metadata=pairs, **filters))).operations}

    assert await found("customer=42") == {"a", "b", "c"}
    assert await found("customer=42", "vip=true", kinds=("k",)) == {"b"}
    await store.publish("a", [encode("metadata", {"phase": "loading", "customer": None}, store.settings)])
    assert await found("customer=42") == {"b", "c"}
    assert await found("phase=queued") == set()
    assert await found("phase=loading") == {"a"}
    await store.publish("a", [encode("progress", {"current": 1}, store.settings)])
    await store.publish("a", [encode("end", {"status": "succeeded"}, store.settings)])
    assert await found("phase=loading", statuses=frozenset({Status.SUCCEEDED})) == {"a"}
    await store.delete("a")
    assert await listed(store, "a") == set()


async def test_grants_and_streams_look_at_what_an_operation_was_created_with(store: Store) -> None:
    await store.create(NewOperation(id="a", metadata={"tenant": "red"}))
    await store.create(NewOperation(id="b", metadata={"tenant": "blue"}))
    red = Grants((granted(["read"], metadata={"tenant": ["red"]}),))

    async def readable() -> set[str]:
        """Return what a caller with this grant can read, where all ways to find out agree."""
        by_id = set()
        for id in "ab":
            attributes = await store.attributes(id)
            assert attributes is not None
            if red.allows(Action.READ, attributes):
                by_id.add(id)
            assert red.allows(Action.READ, attributes_of(await store.get(id))) == (id in by_id)
        page, *_ = await find_page(store, Filters(grants=red))
        assert {it.id for it in page} == by_id
        streamed = await index_search.by_terms(
            store, frozenset({b"metadata:tenant=red"}), {}, range(store.keyspace.lanes), 10
        )
        assert {it.operation for it in streamed.operations} == by_id
        assert all(it.labels("metadata") == ["tenant=red"] for it in streamed.operations)
        return by_id

    assert await readable() == {"a"}
    await store.publish("a", [encode("metadata", {"tenant": "blue"}, store.settings)])
    await store.publish("b", [encode("metadata", {"tenant": "red"}, store.settings)])
    assert await readable() == {"a"}
    await store.delete("a", force=True)
    gone = await store.attributes("a")
    assert gone is not None
    assert list(gone.metadata) == ["tenant=red"]


async def test_the_same_creation_is_the_same_operation_whatever_has_changed_since(store: Store) -> None:
    new = NewOperation(id="x", metadata={"b": 1, "a": {"d": 1, "c": None}})
    await store.create(new)
    await store.publish("x", [encode("metadata", {"b": 2}, store.settings)])
    again, made = await store.create(NewOperation(id="x", metadata={"a": {"c": None, "d": 1}, "b": 1, "none": None}))
    assert not made
    assert again.metadata == {"a": {"d": 1, "c": None}, "b": 2}
    for other in ({"b": 2}, {}):
        with pytest.raises(OperationExists):
            await store.create(NewOperation(id="x", metadata=other))


async def test_what_is_rejected_changes_nothing(store: Store) -> None:
    await store.create(NewOperation(id="x", metadata={"a": "x" * 9_000}))
    with pytest.raises(TooLarge, match=f"at most {MAX_METADATA_BYTES}"):
        await store.publish(
            "x", [NewEvent("log", b'{"message":"m"}'), NewEvent("metadata", b'{"b":"%b"}' % (b"y" * 9_000))]
        )
    for data in (b"[]", b"null", b"{", b'"{}"', b'{"a":1}x'):
        with pytest.raises(InvalidInput, match="JSON object"):
            await store.publish("x", [NewEvent("metadata", data)])
    with pytest.raises(TooLarge):
        encode("metadata", {"b": "y" * MAX_METADATA_BYTES}, store.settings)
    with pytest.raises(TooLarge):
        await store.create(NewOperation(id="y", metadata={"b": "y" * MAX_METADATA_BYTES}))
    with pytest.raises(InvalidInput):
        encode("metadata", [], store.settings)
    operation = await store.get("x")
    assert (operation.events, set(operation.metadata)) == (1, {"a"})
    await store.publish("x", [encode("end", {"status": "succeeded"}, store.settings)])
    with pytest.raises(OperationEnded):
        await store.publish("x", [encode("metadata", {"a": 1}, store.settings)])


async def test_a_batch_applies_its_changes_in_order_and_a_repeat_applies_none(store: Store) -> None:
    await store.create(NewOperation(id="x"))
    first = encode("metadata", {"a": 1, "b": 1}, store.settings, producer="p", seq=1)
    await store.publish("x", [first, encode("metadata", {"a": 2, "b": None}, store.settings, producer="p", seq=2)])
    assert (await store.get("x")).metadata == {"a": 2}
    await store.publish("x", [first])
    assert (await store.get("x")).metadata == {"a": 2}


async def test_what_earlier_releases_read_has_nothing_that_they_reject(store: Store) -> None:
    await store.create(NewOperation(id="x", owner="alice", metadata={"a": 1}))
    await store.publish("x", [encode("metadata", {"b": 2}, store.settings)])
    spec, indexes = await store.connections.commands.hmget(store.keyspace.operation("x").snapshot, ["spec", "indexes"])
    assert "metadata" not in json.loads(spec)
    # They read all lines of `indexes`, without the empty ones, and look at none whose field they do not know.
    assert [line for line in indexes.split(b"\n") if line] == [
        b"kind:operation", b"owner:alice", b"metadata:a=1", b"metadata:b=2"
    ]  # fmt: skip


async def test_a_later_release_may_add_fields_to_the_creation(store: Store) -> None:
    await store.create(NewOperation(id="x", owner="alice"))
    key = store.keyspace.operation("x").snapshot
    spec = json.loads(await store.connections.commands.hget(key, "spec"))
    await store.connections.commands.hset(key, "spec", json.dumps(spec | {"colour": "red"}))
    operation = await store.get("x")
    assert (operation.kind, operation.owner) == ("operation", "alice")
