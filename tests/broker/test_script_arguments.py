"""What the scripts reject before they write: arguments of another kind, and operations of another schema."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from progress_broker.errors import Conflict, NotFound, Unreadable
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.nodes.calls import Call
from progress_broker.operations.commands import all_keys
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.storage.scripts import CREATE, DELETE, PUBLISH, SIGNAL
from tests.keyspace import keys_of_all

RUNNING = NewEvent("status", b'{"status":"running"}', "running")
SCRIPTS = {"create": CREATE, "publish": PUBLISH, "signal": SIGNAL, "delete": DELETE}
ASKED: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "create": lambda store: store.create(NewOperation(id="a", lease_s=None)),
    "publish": lambda store: store.publish("a", [RUNNING]),
    "signal": lambda store: store.signal("a", NewSignal(type="pause")),
    "delete": lambda store: store.delete("a", force=True),
}
OTHERS = {
    "publish, schema 1": ("publish", ("", "", "", "", "log", "{}", "", "", "")),
    "heartbeat, schema 1": ("publish", ("", "", "", "")),
    "a new attempt, schema 1": ("publish", ("+2@1795000000000", "w", "running lapsed", "0", "log", "{}", "", "", "")),
    "create, schema 1": ("create", ("{}", "kind:job", "1000 10000 86400000 604800000", "0")),
    "delete, schema 1": ("delete", ("0", "3600000")),
    "signal, schema 1": ("signal", ("pause", "null", "")),
    "an unknown option": ("publish", ("SURELY", "EVENT", "log", "{}")),
    "an unknown option of an event": ("publish", ("EVENT", "log", "{}", "LEVEL", "info")),
    "an event without data": ("publish", ("EVENT", "log")),
    "an option without its value": ("publish", ("ATTEMPT",)),
    "a producer without a seq": ("publish", ("EVENT", "log", "{}", "PRODUCER", "p")),
    "a seq that is none": ("publish", ("EVENT", "log", "{}", "PRODUCER", "p", "x")),
    "a number that is none": ("publish", ("LEASE", "soon")),
    "a new attempt without its number": ("publish", ("BEGIN",)),
    "a seq to follow without its producer": ("publish", ("AFTER", "7")),
    "a seq to follow that is none": ("publish", ("AFTER", "p", "x")),
    "an observer with a lease": ("publish", ("LEASE", "1", "OBSERVER")),
    "a creation without limits": ("create", ("{}",)),
    "an index that is none": (
        "create",
        ("{}", "INDEX", "job", "HISTORY", "1", "FEED", "1", "RETENTION", "1", "IDLE", "1"),
    ),
    "a deletion without its time": ("delete", ("FORCE",)),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_arguments_that_are_not_understood_are_rejected_and_change_nothing(store: Store, name: str) -> None:
    verb, args = OTHERS[name]
    operation = "other" if verb == "create" else "a"
    await store.create(NewOperation(id="a", lease_s=None))
    await store.publish("a", [RUNNING])
    before = await contents(store)
    keys = store.keyspace.operation(operation)
    given = (keys.snapshot, keys.signals) if verb == "signal" else all_keys(keys)
    reply = await store.connections.scripts.run(Call(SCRIPTS[verb], given, (operation, *args)))
    assert reply[0] == b"invalid"
    assert b". Expected: id " in reply[1]
    assert b"of schema 2" in reply[1]
    assert await contents(store) == before


@pytest.mark.parametrize("verb", ASKED)
async def test_an_operation_of_another_schema_is_rejected_by_its_name_and_left_as_it_is(
    store: Store, verb: str
) -> None:
    """A worker that runs since before an upgrade has not looked at the meta key again."""
    await store.create(NewOperation(id="a", lease_s=None))
    await store.connections.commands.hset(store.keyspace.operation("a").snapshot, "schema", "3")
    said = "operation a is stored in schema 3, but this program supports only schema 2: upgrade"
    before = await contents(store)
    with pytest.raises(Conflict, match=said):
        await ASKED[verb](store)
    with pytest.raises(Unreadable, match=said):
        await store.get("a")
    assert (await find_page(store, Filters())).operations == []
    assert await contents(store) == before


async def test_an_operation_of_the_schema_that_had_none_in_its_hash_is_rejected(store: Store) -> None:
    await store.create(NewOperation(id="a", lease_s=None))
    await store.connections.commands.hdel(store.keyspace.operation("a").snapshot, "schema")
    for asked in (store.publish("a", [RUNNING]), store.get("a"), store.signal("a", NewSignal(type="pause"))):
        with pytest.raises(NotFound, match="another program overwrote"):
            await asked
    await store.delete("a", force=True)


async def contents(store: Store) -> dict[bytes, bytes]:
    """Return all that there is, as Redis would write it to a file."""
    return {key: await store.connections.commands.dump(key) for key in await keys_of_all(store.connections)}
