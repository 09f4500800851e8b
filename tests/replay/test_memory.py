"""A Redis in memory in which operations happen again: their states, their events to those who watch, and queries."""

from collections.abc import AsyncIterator

import orjson
import pytest

from progress_broker.bundle.query import OperationQuery
from progress_broker.errors import NotFound
from progress_broker.history import event_log
from progress_broker.hub import Hub
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.replay.memory import MemoryStore
from progress_broker.replay.recording import Choice, Recorded, load
from progress_broker.replay.spool import Spool
from progress_broker.replay.states import ReplayedState
from progress_broker.stream.delivery import Start
from progress_broker.stream.frames import make_frame
from progress_broker.transfer.format import ExportedEvent, ExportedOperation
from progress_broker.transfer.redis.source import RedisSource, read_one
from tests.broker.harness import Outlet
from tests.conftest import make_settings
from tests.servers import eventually
from tests.transfer.exports import ALL, shown
from tests.transfer.fleet import ENDED, FAILED, SUCCEEDED, UNFINISHED, make_fleet, told

COMPARED = (
    *("n", "position", "status", "progress", "outcome", "started", "finished"),
    *("cancel", "cancel_at", "has_children"),
)


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStore]:
    async with await MemoryStore.in_memory(make_settings(probe_interval_s=0.05)) as memory:
        yield memory


def told_to(outlet: Outlet) -> list[bytes]:
    return [frame.envelope for frame in outlet.frames]


async def test_the_state_after_each_event_is_as_it_was(store: Store) -> None:
    redis, keys = store.connections.commands, store.keyspace.operation("a")
    await store.create(NewOperation(id="a", metadata={"city": "Ulm"}))
    steps: list[list[NewEvent]] = [
        told(1),
        [NewEvent("metadata", b'{"city": null, "rows": [1, 2]}')],
        [NewEvent("status", b'{"status":"stalled"}', "stalled")],
        [NewEvent("status", b'{"status":"running"}', "running")],
        told(2),
        [FAILED],
    ]
    seen: dict[bytes, dict[bytes, bytes]] = {}
    for number, step in enumerate(steps):
        if number == 4:
            await store.create(NewOperation(id="child", parent="a"))
            await store.cancel("a", reason="enough", by="ann")
            fields = await redis.hgetall(keys.snapshot)
            seen[fields[b"n"]] = fields
        await store.publish("a", step, as_observer=step[0].status == "stalled")
        fields = await redis.hgetall(keys.snapshot)
        seen[fields[b"n"]] = fields
    copy = await read_one(store, "a")
    state, compared = ReplayedState(copy.operation), 0
    async for part in copy.events():
        for event in part:
            state.take(event)
            if (wanted := seen.get(b"%d" % event.n)) is None:
                continue
            compared += 1
            for name in map(str.encode, COMPARED):
                assert state.fields.get(name) == wanted.get(name), (event, name)
            metadata = [fields.get(b"metadata") or fields[b"created_metadata"] for fields in (state.fields, wanted)]
            assert orjson.loads(metadata[0]) == orjson.loads(metadata[1])
    assert compared == len(seen) == len(steps) + 1


def test_a_new_attempt_begins_without_progress() -> None:
    fields = {b"spec": b"{}", b"status": b"running", b"attempt": b"2", b"created": b"1", b"worker": b"w2"}
    state = ReplayedState(ExportedOperation("a", fields, b"", 9, 1, b"9-0"))
    state.take(ExportedEvent(1, b"1-0", b"progress", b'{"current":1}'))
    assert state.fields[b"progress"] == b'{"current":1}'
    changes = state.take(ExportedEvent(2, b"2-0", b"status", b'{"status":"running","attempt":2,"worker":"w2"}'))
    assert changes[b"progress"] is None
    assert b"progress" not in state.fields
    assert (state.fields[b"attempt"], state.fields[b"worker"], state.fields[b"started"]) == (b"2", b"w2", b"2")
    for data in (b"no json", b'{"status":"odd"}', b'{"status":["running"]}', b'{"status":"failed"}'):
        state.take(ExportedEvent(3, b"3-0", b"status", data))
        assert state.status == "running"


async def test_operations_happen_again_with_their_ids_and_positions(store: Store, memory: MemoryStore) -> None:
    await make_fleet(store)
    with Spool() as spool:
        recording = await load(RedisSource(store, ALL), Choice(), spool)
        for recorded in await memory.begin(recording, Choice()):
            await memory.send((recorded,))
    for id in (*ENDED, *UNFINISHED):
        assert shown(await memory.get(id)) == shown(await store.get(id))
        mine, theirs = [await event_log.kept(it, id, 10_000) for it in (memory, store)]
        assert [make_frame(event).wire for event in mine] == [make_frame(event).wire for event in theirs]
    found = [await find_page(it, Filters(kinds=("import",)), limit=50) for it in (memory, store)]
    assert [operation.id for operation in found[0].operations] == [operation.id for operation in found[1].operations]


async def test_who_watches_is_told_as_it_happens(store: Store, memory: MemoryStore) -> None:
    """Also by a query, of operations that begin meanwhile; and probes between them are in nobody's way."""
    for id in ("a", "b"):
        await store.create(NewOperation(id=id, kind="import"))
        await store.publish(id, [*told(1), *told(2), SUCCEEDED])
    events: list[Recorded] = []
    with Spool() as spool:
        recording = await load(RedisSource(store, ALL), Choice(), spool)
        events = list(await memory.begin(recording, Choice()))
    of_a = [recorded for recorded in events if recorded.operation == "a"]
    async with Hub(memory, memory.settings) as hub:
        await eventually(lambda: hub.ready, "probes come back")
        with pytest.raises(NotFound):
            await memory.get("a")
        bundle = await hub.bundles.open(OperationQuery((), frozenset({b"kind:import"})), Start())
        everything = Outlet(bundle)
        bundle.attach(everything)
        await memory.send(of_a[:1])
        subscription = await hub.subscribe("a", Start())
        one = Outlet(subscription)
        subscription.attach(one)
        proved = hub.probes[0].proved_at
        await eventually(lambda: hub.probes[0].proved_at > proved, "a probe comes in between")
        for recorded in events[1:]:
            await memory.send((recorded,))
        wanted = [recorded.frame.envelope for recorded in of_a[1:]]
        await eventually(lambda: [it for it in told_to(one) if it in wanted] == wanted, "who watches one is told")
        ends = [recorded.frame.envelope for recorded in events if recorded.event.type == b"end"]
        await eventually(lambda: {*ends} <= {*told_to(everything)}, "and who watches all")
        await eventually(lambda: hub.not_ready_reason is None, "probes still come back")
        bundle.close()


async def test_what_was_before_happens_at_once(store: Store, memory: MemoryStore) -> None:
    await store.create(NewOperation(id="a"))
    await store.publish("a", [*told(1), *told(2)])
    middle = (await event_log.kept(store, "a", 100))[2].position.decode()
    with Spool() as spool:
        recording = await load(RedisSource(store, ALL), Choice(), spool)
        later = list(await memory.begin(recording, Choice(after=middle)))
    assert (await memory.get("a")).position == middle
    assert [recorded.event.n for recorded in later] == [4, 5, 6]
