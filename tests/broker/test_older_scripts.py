"""An older text of the scripts and today's, side by side on the same operations.

`schema_2` has the scripts as a release of schema 2 printed them (`progress-broker script`), for a worker that keeps its
text; what all of them begin with stands there once. They are never edited. A new schema replaces them by its own.
"""

from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from progress_broker.errors import Gone
from progress_broker.history import event_log
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation, NewSignal, Status
from progress_broker.model.position import START
from progress_broker.nodes.calls import Call, Script
from progress_broker.operations.commands import create_call, delete_call, publish_call, signal_call
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.storage.scripts import CREATE, DELETE, PUBLISH, SCHEMA, SIGNAL
from tests.keyspace import flush_all, keys_of_all

FOLDER = Path(__file__).with_name("schema_2")
TODAYS = {"create": CREATE, "publish": PUBLISH, "signal": SIGNAL, "delete": DELETE}
LINES = 130
"""More than the log keeps of an operation that asks for the shortest history."""


def older(verb: str) -> Script:
    text = (FOLDER / f"{verb}.lua").read_text().replace("-- The prelude.\n", (FOLDER / "prelude.lua").read_text())
    assert text.count(f"local SCHEMA = '{SCHEMA}'") == 1
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


OLDER = {TODAYS[verb].sha: older(verb) for verb in TODAYS}
ORDERS: dict[str, Callable[[int], bool]] = {
    "the older one's": lambda number: True,
    "in turn": lambda number: number % 2 == 0,
    "in turn, today's first": lambda number: number % 2 == 1,
    "upgraded": lambda number: number < 20,
    "gone back": lambda number: number >= 20,
}


TIMES = {"created_at", "started_at", "updated_at", "finished_at", "expires_at", "elapsed_ms", "position", "cancel"}


class Life(NamedTuple):
    """What came of an operation: the same, whichever texts were called."""

    replies: list[Any]
    operation: dict[str, Any]
    events: list[tuple[int, str, Any]]
    found: list[str]
    signals: list[Any]


async def live(store: Store, is_older: Callable[[int], bool]) -> Life:
    """Make the calls of a whole operation, some by the older text; return what came of it."""
    keys, settings = store.keyspace.operation("a"), store.settings
    redis, replies = store.connections.commands, []

    async def send(call: Call) -> None:
        if is_older(len(replies)):
            call = call._replace(script=OLDER[call.script.sha])
        reply = await store.connections.scripts.run(call)
        replies.append([reply[0], *(reply[2:4] if reply[0] == b"ok" else reply[1:])])

    async def publish(*events: NewEvent, **options: Any) -> None:
        await send(publish_call("a", keys, events, **options))

    new = NewOperation(
        id="a", kind="job", owner="ann", tags=["eu"], lease_s=30, history_length=10, parent="p", retention_s=60
    )
    for _ in range(4):  # created once; then found, by either text
        await send(create_call("a", keys, new, settings))
    await send(signal_call("a", keys, NewSignal(type="pause", data=1), "bob", settings))
    await send(signal_call("a", keys, NewSignal(type="go"), None, settings))
    await publish(attempt=1, worker="w", lease_ms=5_000)
    await publish(told(1, 10, 1), attempt=1, worker="w")
    await publish(told(2, 10, 2), line(3), attempt=1)
    for _ in range(4):  # a repeat, to whichever text
        await publish(told(2, 10, 2), line(3), attempt=1)
    for number in range(4, LINES, 2):
        await publish(told(number, 1000, number), line(number + 1), attempt=1)
    for _ in range(2):
        await publish(line(LINES - 1), attempt=1)  # a repeat of the newest event,
        await publish(line(41), attempt=1)  # and of one that the log no longer has
        await publish(counted(1.0, 1), as_observer=True)
        await publish(counted(2.5, 2), as_observer=True)
    await publish(NewEvent("status", b'{"status":"stalled"}', "stalled"), lease_expired=True)
    await publish(NewEvent("status", b'{"status":"stalled"}', "stalled"), as_observer=True)
    await publish(NewEvent("log", b'{"message":"an onlooker"}'), as_observer=True)
    await publish(attempt=1)
    await publish(attempt=2, begins=True, worker="v")
    await publish(told(9, 10, LINES + 1), attempt=1)
    await publish(NewEvent("snapshot", b"{}"))
    await publish(NewEvent("end", b'{"status":"succeeded"}'))
    await publish(NewEvent("status", b'{"status":"cancelling","reason":"enough"}', "cancelling"), as_observer=True)
    await publish(NewEvent("progress", b'{"current":1,"total":2,"percent":50}'), attempt=2)
    await publish(NewEvent("end", b'{"status":"cancelled","error":null}', "cancelled", "w2", 1), attempt=2)
    for _ in range(2):
        await publish(NewEvent("end", b'{"status":"cancelled","error":null}', "cancelled", "w2", 1), attempt=2)
        await publish(NewEvent("log", b'{"message":"too late"}'), attempt=2)
        await send(signal_call("a", keys, NewSignal(type="late"), None, settings))
    shown = (await store.get("a")).model_dump(mode="json")
    page = await event_log.after(store, "a", START, 1000)
    assert page.reset is None
    signals = [fields for _, fields in await redis.xrange(keys.signals)]
    found = [each.id for each in (await find_page(store, Filters(owners=("ann",), tags=("eu",)))).operations]
    for _ in range(2):
        await send(delete_call("a", keys, force=False, settings=settings))
    await send(create_call("a", keys, new, settings))
    with pytest.raises(Gone):
        await store.get("a")
    assert not await redis.zcard(keys.lane.index)
    await store.upkeep.repair()
    events = [(event.n, event.type, event.data) for event in page.events]
    return Life(replies, {name: shown[name] for name in shown.keys() - TIMES}, events, found, signals)


def told(current: int, total: int, seq: int) -> NewEvent:
    data = b'{"current":%d,"total":%d,"percent":%d}' % (current, total, 100 * current // total)
    return NewEvent("progress", data, producer="w", seq=seq)


def line(seq: int) -> NewEvent:
    return NewEvent("log", b'{"message":"line %d"}' % seq, producer="w", seq=seq)


def counted(by: float, seq: int) -> NewEvent:
    return NewEvent("progress", b'{"current":null,"total":null,"percent":null}', "", "x", seq, (by, 5.0))


@pytest.mark.parametrize("order", ORDERS)
async def test_an_operation_comes_to_the_same_whichever_text_is_called(store: Store, order: str) -> None:
    by_today_s = await live(store, lambda _: False)
    assert by_today_s.replies[:2] == [[b"ok", 1, None], [b"ok", 1, None]]
    assert (by_today_s.operation["status"], by_today_s.found) == (Status.CANCELLED, ["a"])
    await flush_all(store.connections)
    assert await live(store, ORDERS[order]) == by_today_s


async def test_an_older_text_leaves_what_it_does_not_know_as_it_is(store: Store) -> None:
    keys = store.keyspace.operation("a")

    async def by_older(*events: NewEvent) -> None:
        call = publish_call("a", keys, events)
        reply = await store.connections.scripts.run(call._replace(script=OLDER[call.script.sha]))
        assert reply[0] == b"ok"

    new = NewOperation(id="a", metadata={"customer": 42, "phase": "load"}, lease_s=None)
    await store.create(new)
    await store.publish("a", [NewEvent("metadata", b'{"phase":"send"}')])
    await by_older(NewEvent("progress", b'{"current":1,"total":2,"percent":50}'))
    assert (await store.get("a")).metadata == {"customer": 42, "phase": "send"}
    await store.publish("a", [NewEvent("metadata", b'{"phase":null}')])
    await by_older(NewEvent("end", b'{"status":"succeeded"}', "succeeded"))
    shown = await store.get("a")
    assert (shown.status, shown.metadata) == (Status.SUCCEEDED, {"customer": 42})
    assert [each.id for each in (await find_page(store, Filters(metadata=("customer=42",)))).operations] == ["a"]
    assert [each.id for each in (await find_page(store, Filters(metadata=("phase=send",)))).operations] == []
    call = delete_call("a", keys, force=False, settings=store.settings)
    assert (await store.connections.scripts.run(call._replace(script=OLDER[call.script.sha])))[0] == b"ok"
    await store.upkeep.repair()
    assert not [key for key in await keys_of_all(store.connections) if b":index" in key]
