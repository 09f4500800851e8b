"""What the publish script rejects, and what it answers to repeats."""

import pytest

from progress_broker import errors
from progress_broker.history import event_log
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, Status
from progress_broker.operations.commands import publish_call, read_answer, read_published
from progress_broker.operations.store import Store


def said(store: Store, message: str, producer: str = "p", seq: int | None = None) -> NewEvent:
    return encode("log", {"message": message}, store.settings, producer=producer, seq=seq)


async def logged(store: Store) -> list[bytes]:
    return [event.data for event in await event_log.kept(store, "a", 1000) if event.type == b"log"]


@pytest.mark.parametrize("status", ["", "running", "cancelling"])
async def test_an_end_that_does_not_end_the_operation_is_rejected(store: Store, status: str) -> None:
    await store.create(NewOperation(id="a"))
    with pytest.raises(errors.InvalidInput, match="needs STATUS"):
        await store.publish("a", [NewEvent("end", b'{"status":"succeeded"}', status)])
    assert (await store.get("a")).status is Status.PENDING
    assert (await store.get("a")).events == 1


@pytest.mark.parametrize("later", [6, 7])
async def test_a_batch_whose_seq_does_not_go_up_is_rejected(store: Store, later: int) -> None:
    await store.create(NewOperation(id="a"))
    with pytest.raises(errors.InvalidInput, match=f"sends seq {later} after seq 7"):
        await store.publish("a", [said(store, "seven", seq=7), said(store, "q", "q", 1), said(store, "", seq=later)])
    assert await logged(store) == []
    await store.publish("a", [said(store, "six", seq=6), said(store, "q", "q", 1), said(store, "seven", seq=7)])
    assert len(await logged(store)) == 3


async def test_a_batch_that_ends_with_a_repeat_is_answered_as_that_was(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    first = await store.publish("a", [said(store, "old", "q", 1)])
    assert await store.publish("a", [said(store, "new", "r", 1), said(store, "old", "q", 1)]) == first
    assert (await store.get("a")).events == 3


async def test_an_attempt_that_has_not_begun_is_rejected(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    for entries in ([], [said(store, "from the future")]):
        with pytest.raises(errors.Conflict, match="is at attempt 1, and attempt 2 has not begun"):
            await store.publish("a", entries, attempt=2)
    assert await logged(store) == []
    call = publish_call("a", store.keyspace.operation("a"), [said(store, "begun")], attempt=2, begins=True)
    read_answer(await store.connections.scripts.run(call))
    await store.publish("a", [said(store, "goes on")], attempt=2)
    assert len(await logged(store)) == 2


async def test_a_shorter_lease_leaves_one_that_is_held_for_longer(store: Store) -> None:
    await store.create(NewOperation(id="a", lease_s=10))
    await store.publish("a", [encode("progress", {"percent": 1}, store.settings)])
    await store.publish("a", [], lease_ms=3_600_000)
    leases = store.keyspace.operation("a").lane.leases
    held = await store.connections.commands.zscore(leases, "a")
    await store.publish("a", [], lease_ms=20_000)
    for _ in range(store.keyspace.lanes):  # each call corrects deadlines of one lane that are too late
        assert await store.upkeep.expired_leases() == []
    assert await store.connections.commands.zscore(leases, "a") == held


@pytest.mark.parametrize("backend", ["redis"])  # the double is slow
async def test_many_events_of_a_batch_that_change_the_snapshot_are_stored(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    many = [encode("progress", {"current": n}, store.settings) for n in range(5000)]
    await store.publish("a", many)
    assert (await store.get("a")).progress == {"current": 4999}
    await store.delete("a", force=True)  # the publishes that would follow move events of so long a log


ODD = '"message":"m","stages":[],"odd":[1,{"a":"}],\\""}]'
JOINED = f'{{"current":1,"total":null,"percent":null,{ODD},"metrics":{{"x":1.50,"y":[]}}}}'.encode()


async def test_what_several_publishers_say_is_joined_as_they_wrote_it(store: Store) -> None:
    await store.create(NewOperation(id="a"))

    async def publish(data: bytes, count: tuple[float, float] | None = None) -> str:
        await store.publish("a", [NewEvent("progress", data, count=count)])
        stored = await store.connections.commands.hget(store.keyspace.operation("a").snapshot, "progress")
        return str(stored.decode())

    assert await publish(JOINED) == JOINED.decode()
    head = '{"current":3,"total":null,"percent":null'
    added = b'{"current":0,"total":null,"percent":null,"metrics":{"z":{},"x":12345678901234567890}, "new" : "\\u00e9" }'
    joined = f'{head},{ODD},"metrics":{{"x":12345678901234567890,"y":[],"z":{{}}}},"new":"\\u00e9"}}'
    assert await publish(added, (2, 0)) == joined
    assert await publish(b'{"current":1,"total":null,"percent":null}') == joined
    for broken in (b'{"current":0,"total":null,"percent":null,"stages":{"a":1},"metrics":7}', JOINED):
        await publish(broken, (0, 0))
    large = b'{"current":0,"total":null,"percent":null,"big":"%b"}' % (b"x" * 70_000)
    assert len(await publish(large, (0, 0))) < 70_100, "it does not grow for ever"


async def test_a_producer_that_was_told_more_than_is_stored_is_told_of_the_gap(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    keys = store.keyspace.operation("a")

    async def send(*entries: NewEvent, after: tuple[str, int], attempt: int = 1) -> None:
        call = publish_call("a", keys, entries, attempt=attempt, after=after, expect="running")
        read_published(await store.connections.scripts.run(call))

    await store.publish("a", [NewEvent("status", b'{"status":"running"}', "running")])
    await send(said(store, "one", seq=1), said(store, "two", seq=2), after=("p", 0))
    kept = await store.connections.commands.hgetall(keys.snapshot)
    await send(said(store, "three", seq=3), after=("p", 2))
    await send(after=("p", 3))
    await send(said(store, "three", seq=3), after=("p", 3))  # a repeat, whatever it is after
    await store.connections.commands.hset(keys.snapshot, mapping=kept)  # as a failover does that loses the third
    for entries in ((), (said(store, "four", seq=4),), (said(store, "other", "q", 1),)):
        before = await store.connections.commands.hgetall(keys.snapshot)
        with pytest.raises(errors.Gap, match="has the events of producer p up to seq 2 and not up to seq 3") as gap:
            await send(*entries, after=("p", 3))
        assert gap.value.last == 2
        assert await store.connections.commands.hgetall(keys.snapshot) == before
    with pytest.raises(errors.Conflict, match="attempt 2 has not begun"):  # another reason to send nothing again
        await send(after=("p", 3), attempt=2)
    await send(said(store, "three", seq=3), said(store, "four", seq=4), after=("p", 2))
    with pytest.raises(errors.Gap, match="up to seq 0"):
        await send(after=("unknown", 1))
    await store.connections.commands.hset(keys.snapshot, "producers", 256)
    await send(after=("unknown", 1))  # it may have been forgotten
    with pytest.raises(errors.Gap):
        await send(after=("p", 5))
