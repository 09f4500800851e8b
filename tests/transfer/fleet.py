"""Operations of all kinds, to move."""

from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.nodes.run import run
from progress_broker.operations.commands import publish_call
from progress_broker.operations.store import Store

SUCCEEDED = NewEvent("end", b'{"status":"succeeded","result":{"rows": 1e3}}', "succeeded")
FAILED = NewEvent("end", b'{"status":"failed","error":{"type":"Timeout","message":"no answer"}}', "failed")

ENDED = ("short", "failed", "long", "again", "foreign", "parent", "child-1", "child-2", "cancelled")
UNFINISHED = ("pending", "running", "stalled")


def told(n: int) -> list[NewEvent]:
    progress = NewEvent("progress", b'{"current":%d}' % n, "", "worker", 2 * n)
    return [progress, NewEvent("log", b'{"message": "line %d"}' % n, "", "worker", 2 * n + 1)]


async def publish(store: Store, id: str, *numbers: int) -> None:
    for at in range(0, len(numbers), 200):
        await store.publish(id, [event for n in numbers[at : at + 200] for event in told(n)])


async def make_fleet(store: Store) -> None:
    """Create operations of all kinds: some ended, some not."""
    redis = store.connections.commands
    await store.create(NewOperation(id="pending"))
    await store.create(NewOperation(id="running", lease_s=60, history_length=100))
    await publish(store, "running", *range(1, 30))
    await store.signal("running", NewSignal(type="pause"))
    await store.create(NewOperation(id="stalled", lease_s=60))
    await publish(store, "stalled", 1)
    await store.publish("stalled", [NewEvent("status", b'{"status":"stalled"}', "stalled")], as_observer=True)

    new = NewOperation(id="short", kind="import", title="Ö", owner="ann", tags=["eu", "x"], metadata={"customer": 42})
    await store.create(new)
    await store.publish("short", [encode("metadata", {"customer": 43, "note": "ö"}, store.settings)])
    await store.publish("short", [SUCCEEDED])
    await store.create(NewOperation(id="failed", kind="import", retention_s=600))
    await publish(store, "failed", 1, 2)
    await store.publish("failed", [FAILED])
    await store.create(NewOperation(id="long", kind="import", history_length=100, lease_s=60))
    await publish(store, "long", *range(1, 160))
    await store.publish("long", [SUCCEEDED])
    await store.create(NewOperation(id="again", lease_s=60))
    await publish(store, "again", 1)
    await run(redis, publish_call("again", store.keyspace.operation("again"), [], attempt=2, begins=True, worker="w2"))
    for seq in (1, 2):
        count = NewEvent("progress", b'{"current":null,"total":null,"percent":null}', "", "x", seq, (2.5, 5.0))
        await store.publish("again", [count], as_observer=True)
    await store.publish("again", [SUCCEEDED])
    await store.create(NewOperation(id="foreign"))
    keys = store.keyspace.operation("foreign")
    await store.publish(
        "foreign", [NewEvent("x.note", b'{"a":\n1}'), NewEvent("x.note", b'"just text"', "", "p \xff", 7)]
    )
    await store.publish("foreign", [NewEvent("x.note", b"\xff no json", "", 'worker "7"', 7)])
    await redis.hset(keys.snapshot, b"producer:\xfe", "1 1-0 1")
    await store.publish("foreign", [SUCCEEDED])
    await store.create(NewOperation(id="parent", metadata={"batch": "7"}))
    for n in (1, 2):
        await store.create(NewOperation(id=f"child-{n}", parent="parent", weight=n))
        await store.publish(f"child-{n}", [SUCCEEDED])
    await store.publish("parent", [SUCCEEDED])
    await store.create(NewOperation(id="cancelled", lease_s=60))
    await publish(store, "cancelled", 1)
    await store.cancel("cancelled", reason="enough", by="ann")
    await store.publish("cancelled", [NewEvent("end", b'{"status":"cancelled"}', "cancelled")])
