"""What is kept of a long operation: each of the newest events, all others but `progress`, and a curve of that."""

from collections.abc import Sequence
from contextlib import aclosing
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest

from progress_broker.history import event_log
from progress_broker.history.losses import Loss, Lost, note
from progress_broker.hub import Hub
from progress_broker.model.entry import encode
from progress_broker.model.event import Event
from progress_broker.model.operation import NewOperation
from progress_broker.model.position import START, milliseconds, order
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.delivery import Start
from tests.broker.harness import Outlet
from tests.conftest import make_settings
from tests.servers import eventually

WINDOW = 100
PAGE = 50
POINTS = 400


@pytest.fixture
def settings() -> Settings:
    return make_settings(ring_length=8, page_length=PAGE, history_length=WINDOW)


async def publish(store: Store, kinds: Sequence[str], operation: str = "a") -> None:
    events = [
        encode("progress", {"current": i}, store.settings)
        if kind == "progress"
        else encode(kind, {"message": f"{kind} {i}"}, store.settings)
        for i, kind in enumerate(kinds)
    ]
    for at in range(0, len(events), 40):
        await store.publish(operation, events[at : at + 40])


async def whole(store: Store, position: str, operation: str = "a") -> tuple[list[Event], str | None]:
    """Return all that is read from a position on, page by page."""
    events: list[Event] = []
    while True:
        page = await event_log.after(store, operation, position, 50)
        events += page.events
        if not page.events:
            return events, page.reset
        position = page.events[-1].position.decode()


async def test_progress_displaces_nothing_else_and_a_curve_of_it_stays(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, ["log", *["progress"] * 1_000, "custom.kind", *["progress"] * 1_000, "log"])
    events, reset = await whole(store, START)
    assert reset is None
    others = [event for event in events if event.type != b"progress"]
    assert [(event.n, event.type) for event in others] == [
        (1, b"status"),
        (2, b"log"),
        (3, b"status"),  # the first progress brings it
        (1_004, b"custom.kind"),
        (2_005, b"log"),
    ]
    assert [event.n for event in events] == sorted({event.n for event in events})
    assert [event.n for event in events][-WINDOW:] == list(range(2_006 - WINDOW, 2_006)), "each of the newest"
    assert len(events) <= POINTS + 2 * WINDOW + len(others)


async def test_points_of_the_curve_are_spread_over_the_operations_life(store: Store) -> None:
    """A day of progress, and ten times as much in its second half as in its first."""
    keys = store.keyspace.operation("a")
    redis: Any = store.connections.commands
    lua = files("progress_broker.storage") / "lua"
    text = "".join((lua / f"{name}.lua").read_text() for name in ("prelude", "older_events"))
    moved = f"move_older_events(KEYS[1], {WINDOW}, '{WINDOW}', tonumber(ARGV[1]), tonumber(ARGV[2]), 1000)"
    run = f"{text} return {{{moved}}}"
    day_ms = 86_400_000
    times = [*range(1, day_ms // 2, 50_000), *range(day_ms // 2 + 1, day_ms, 5_000)]
    archived = distance = 0
    for at in range(0, len(times), 1_000):
        async with redis.pipeline(transaction=False) as pipeline:
            for n, ms in enumerate(times[at : at + 1_000], at + 1):
                pipeline.xadd(keys.log, {"n": n, "t": "progress", "d": "{}"}, f"{ms}-0")
            await pipeline.execute()
        archived, distance = await redis.eval(run, 1, keys.log, archived, distance)
    assert archived == len(times) - WINDOW
    points = [milliseconds(id) for id, _ in await redis.xrange(keys.curve)]
    assert points[0] == 1
    assert POINTS / 2 <= len(points) <= POINTS
    assert max(later - earlier for earlier, later in pairwise(points)) <= 2.1 * day_ms / (POINTS / 2)
    await redis.delete(keys.log, keys.kept, keys.curve)


async def test_every_kept_position_resumes_with_every_kept_event_after_it(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, (["progress"] * 30 + ["log"]) * 40)
    await publish(store, [])
    events, _ = await whole(store, START)
    for at in events[:: len(events) // 12]:
        after, reset = await whole(store, at.position.decode())
        assert (after, reset) == ([event for event in events if event.n > at.n], None)
    at = events[3]
    subscription = await hub.subscribe("a", Start(at.position.decode()))
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    await eventually(lambda: outlet.numbers[-1:] == [events[-1].n], "it catches up")
    assert outlet.numbers == [event.n for event in events if event.n > at.n]
    await publish(store, ["progress", "log"])
    await eventually(lambda: outlet.numbers[-1:] == [events[-1].n + 2], "it is live")
    subscription.close()


async def test_a_position_of_progress_that_is_no_longer_kept_resumes_without_a_reset(store: Store, hub: Hub) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, ["progress"] * 20)
    known = (await event_log.kept(store, "a", 1_000))[10:20]
    await publish(store, (["progress"] * 50 + ["log"]) * 60)
    events, _ = await whole(store, START)
    kept = {event.n for event in events}
    gone = next(event for event in known if event.n not in kept)
    after, reset = await whole(store, gone.position.decode())
    assert (after, reset) == ([event for event in events if event.n > gone.n], None)
    subscription = await hub.subscribe("a", Start(gone.position.decode()))
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    await eventually(lambda: outlet.numbers[-1:] == [events[-1].n], "it catches up")
    assert outlet.numbers == [event.n for event in after]
    subscription.close()


async def test_a_reset_is_told_only_where_something_else_than_progress_is_gone(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    first = (await store.get("a")).position
    await publish(store, ["log"] * 900)
    assert (await event_log.after(store, "a", first, 10)).reset == "trimmed"
    assert (await event_log.after(store, "a", START, 10)).reset == "trimmed"
    oldest = (await event_log.kept(store, "a", 1))[0]
    assert oldest.n > 1
    events, reset = await whole(store, oldest.position.decode())
    assert reset is None
    assert [event.n for event in events] == list(range(oldest.n + 1, 902))
    await publish(store, ["progress"] * 900)
    events, reset = await whole(store, events[-WINDOW].position.decode())
    assert reset is None
    assert [event.n for event in events if event.type == b"log"] == list(range(902 - WINDOW + 1, 902))


async def test_who_begins_at_the_start_is_told_all_that_is_kept(store: Store, hub: Hub) -> None:
    """Also if the oldest that is kept are points from before other events that are gone: more than a page has."""
    await store.create(NewOperation(id="a"))
    await publish(store, ["progress"] * 300)
    await publish(store, ["log"] * 600)
    read = await event_log.kept(store, "a", 1_000)
    events = read + (await whole(store, read[-1].position.decode()))[0]
    points = [event for event in events if event.type == b"progress"]
    assert (await event_log.after(store, "a", points[-1].position.decode(), 1)).reset == "trimmed"
    assert len(points) > 4 * PAGE
    logs = [event.n for event in events if event.type == b"log"]
    assert logs == list(range(logs[0], logs[-1] + 1))
    assert len(logs) >= 2 * WINDOW
    for count in (1, 7, PAGE):
        page = await event_log.kept(store, "a", count)
        assert len(page) == count
        assert {event.n for event in page} <= {event.n for event in events}
        assert page[: count - 1][-1:] == points[-1:] * (count > 1), "the newest point is among them"
        rest, reset = await whole(store, page[-1].position.decode())
        assert reset is None
        assert [event.n for event in (*page, *rest) if event.type == b"log"] == logs
    subscription = await hub.subscribe("a", Start(beginning=True))
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    await eventually(lambda: outlet.numbers[-1:] == [events[-1].n], "it catches up")
    assert outlet.numbers == [event.n for event in events]
    subscription.close()
    async with aclosing(event_log.follow(store, "a", START)) as following:
        assert [(await anext(following)).n for _ in events] == [event.n for event in events]


async def test_a_position_that_it_never_had_is_lost(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    await publish(store, ["progress"] * 900)
    created = order((await event_log.kept(store, "a", 1))[0].position)
    newest = order((await store.get("a")).position.encode())
    for ms in (created[0] - 1_000, newest[0] + 1_000):
        assert (await event_log.after(store, "a", f"{ms}-0", 10)).reset == "lost"


async def test_who_has_lost_a_position_goes_on_from_what_both_have(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    for _ in range(3):
        await publish(store, ["log"])
    events = await event_log.kept(store, "a", 10)
    second, last = events[1], events[-1]
    lane, lost = store.keyspace.lane_of("a"), b"%d-0" % (milliseconds(last.position) + 5)
    minutes_later = b"%d-0" % (milliseconds(last.position) + 120_000)

    async def shared(position: bytes, *, certain: bool = False) -> int | None:
        found = await event_log.last_shared(store, "a", Lost(position, certain))
        return None if found is None else found.n

    assert await shared(lost) == 0, "other events may have older positions"
    assert await shared(lost, certain=True) == last.n
    assert await shared(second.position) == second.n
    await note(store, {lane: Loss(b"1-0", b"2-0"), lane + 1: Loss(last.position, lost)})
    assert await shared(lost) == 0, "that was another loss, and that another lane"
    await note(store, {lane: Loss(last.position, lost, certain=False)})
    assert await shared(lost) == 0
    await note(store, {lane: Loss(last.position, lost)})
    assert (await shared(lost), await shared(minutes_later)) == (last.n, 0)
    await note(store, {lane: Loss(second.position, lost)})
    assert await shared(lost) == second.n, "some were told by the one Redis, and some by the other"


async def test_without_its_first_events_one_goes_on_from_the_oldest_that_is_whole(store: Store) -> None:
    await store.create(NewOperation(id="a", history_length=10))
    await publish(store, ["log"] * 300)
    first, *_ = events = await event_log.kept(store, "a", 1_000)
    assert first.n > 1
    found = await event_log.last_shared(store, "a", Lost(b"%d-0" % (milliseconds(events[-1].position) + 5)))
    assert found == (first.n, first.position)
    assert (await event_log.after(store, "a", first.position.decode(), 1_000)).reset is None
    assert await event_log.last_shared(store, "a", Lost(b"5-0")) is None


async def test_older_events_leave_with_their_operation(store: Store) -> None:
    keys = store.keyspace.operation("a")
    redis: Any = store.connections.commands
    await store.create(NewOperation(id="a"))
    await publish(store, ["progress", "log"] * 200)
    left = [await redis.pttl(key) for key in (keys.snapshot, keys.kept, keys.curve)]
    assert all(0 < ms <= left[0] + 1_000 for ms in left)
    await store.delete("a", force=True)
    assert await redis.exists(keys.log, keys.kept, keys.curve) == 0


async def test_what_an_earlier_operation_left_is_not_shown(store: Store) -> None:
    """Its hash was deleted by hand."""
    keys = store.keyspace.operation("a")
    redis: Any = store.connections.commands
    await store.create(NewOperation(id="a"))
    await publish(store, ["progress", "log"] * 200)
    await redis.delete(keys.snapshot, keys.log)
    await store.create(NewOperation(id="a"))
    await publish(store, ["log"] * 30)
    assert [event.n for event in (await whole(store, START))[0]] == list(range(1, 32))
    await publish(store, ["log"] * 300)
    events = await event_log.kept(store, "a", 1_000)
    assert [event.n for event in events] == list(range(events[0].n, 332))


async def test_a_log_that_an_older_release_trimmed_has_a_reset(store: Store) -> None:
    """An older release of the schema deletes the oldest events."""
    keys = store.keyspace.operation("a")
    redis: Any = store.connections.commands
    await store.create(NewOperation(id="a"))
    first = (await store.get("a")).position
    await publish(store, ["log"] * 250)
    await redis.xtrim(keys.log, maxlen=50)
    for more in (0, 30, 200):
        await publish(store, ["log"] * more)
        assert (await event_log.after(store, "a", first, 10)).reset == "trimmed"
        events = await event_log.kept(store, "a", 1_000)
        assert [event.n for event in events] == list(range(events[0].n, events[-1].n + 1))


LARGE = 60_000


async def publish_large(store: Store, number: int) -> None:
    for i in range(0, number, 10):
        await store.publish(
            "a", [encode("log", {"message": f"{n} {'x' * LARGE}"}, store.settings) for n in range(i, i + 10)]
        )


async def test_large_events_are_read_and_moved_a_part_at_a_time(store: Store) -> None:
    """Redis does nothing else meanwhile. A page of them is short, and the next one goes on."""
    await store.create(NewOperation(id="a"))
    await publish_large(store, 300)
    redis = store.connections.commands
    assert await redis.xlen(store.keyspace.operation("a").log) < WINDOW + 200, "the log does not grow for ever"
    page = await event_log.kept(store, "a", 1_000)
    assert 50 < len(page) < 100
    events, reset = await whole(store, page[-1].position.decode())
    assert reset is None
    numbers = [event.n for event in (*page, *events)]
    assert numbers == list(range(numbers[0], 302))
    assert len(numbers) > 2 * WINDOW


async def test_a_curve_has_fewer_points_if_they_are_large(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    large = encode("progress", {"current": 1, "message": "x" * 15_000}, store.settings)
    for _ in range(60):
        await store.publish("a", [large] * 10)
    points = await store.connections.commands.xrange(store.keyspace.operation("a").curve)
    assert 20 < len(points) <= (1 << 20) // 15_000
    assert (await event_log.kept(store, "a", 5))[0].n == 1
