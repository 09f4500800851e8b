from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from progress_broker.history.losses import Lost
from progress_broker.live.channel import Channel
from progress_broker.live.history import RingLimits
from progress_broker.model.event import Event
from progress_broker.model.operation import Operation
from progress_broker.operations.snapshot import FIELDS, read_snapshot
from progress_broker.stream.batching import BOOKMARK_EVERY, SLICE_BYTES, conflate
from progress_broker.stream.delivery import Delivery
from progress_broker.stream.frames import Frame, make_frame, snapshot_frame
from progress_broker.stream.outlet import UNENCODED
from progress_broker.stream.replay import Reading, Replays
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import CONFLATE_OVER, Subscription
from tests.broker.harness import ALL, Outlet, Timers, event, frame
from tests.losses import shared_with


def operation(n: int, status: str = "running") -> Operation:
    fields = {
        "schema": b"2",
        "spec": b'{"kind":"k","title":null,"owner":null,"tags":[],"parent":null}',
        "status": status.encode(),
        "n": b"%d" % n,
        "position": b"%d-0" % (1_000 + n),
        "created": b"1000",
    }
    return read_snapshot("a", [fields.get(name) for name in FIELDS])


def snapshot(n: int, status: str = "running", reset: str | None = None) -> Frame:
    return snapshot_frame(operation(n, status), reset)


class Log:
    """A log and its channel, which has the last `ring` events in memory. The test decides when its reads finish."""

    def __init__(self, ring: int = 5, older: int = 0) -> None:
        self.events = [event(n, "log") for n in range(1, older + 1)]
        self.ring, self.trimmed = ring, 0
        self.loading = False
        self.pages: list[bytes] = []
        self.snapshots: list[Lost | None] = []
        self.emptied = 0
        self.channel = Channel("a", self, RingLimits(ring, 1_000_000))
        self.channel.bookmark_every = BOOKMARK_EVERY
        self.channel.loaded_with(self.events[-ring:])

    def publish(self, type: str = "progress", *, missed: bool = False, data: bytes = b"{}") -> Event:
        made = event(len(self.events) + 1, type, data=data)
        self.events.append(made)
        if not missed:
            self.channel.accept([made])
        return made

    def load(self, channel: Channel) -> None:
        self.loading = True

    def history_length(self, channel: Channel) -> None:
        channel.bookmark_every = BOOKMARK_EVERY

    def page(self, channel: Channel, position: bytes) -> None:
        self.pages.append(position)

    def snapshot(self, channel: Channel, lost: Lost | None) -> None:
        self.snapshots.append(lost)

    def empty(self, channel: Channel) -> None:
        self.emptied += 1

    def answer(self, length: int = 3) -> None:
        if self.loading:
            self.loading = False
            self.channel.loaded_with(self.events[-self.ring :])
        pages, self.pages = self.pages, []
        for position in pages:
            n = max(0, int(position.partition(b"-")[0]) - 1_000)
            reset = "trimmed" if n < self.trimmed else None
            self.channel.page_read(position, [] if reset else self.events[n : n + length], reset)
        snapshots, self.snapshots = self.snapshots, []
        for lost in snapshots:
            self.channel.snapshot_read(lost, operation(len(self.events)), shared_with(self.events, lost))


def placed(log: Log, at: int = 0, delivery: Delivery = ALL, timers: Timers | None = None) -> Subscription:
    subscription = Subscription(log.channel, delivery, (timers or Timers()).policy())
    log.channel.add(subscription)
    subscription.begin(at, b"%d-0" % (1_000 + at))
    return subscription


def waiting(log: Log, position: bytes = b"0-0") -> Subscription:
    """A subscription of a client that has a position, to an operation that does not exist."""
    subscription = Subscription(log.channel, ALL, Timers().policy())
    log.channel.add(subscription)
    subscription.expect(position)
    subscription.wait()
    return subscription


def attached(subscription: Subscription, room: int = 1_000_000) -> Outlet:
    outlet = Outlet(subscription, room)
    subscription.attach(outlet)
    return outlet


def subscribed(
    log: Log, *, at: int = 0, room: int = 1_000_000, delivery: Delivery = ALL, timers: Timers | None = None
) -> tuple[Subscription, Outlet]:
    delivery = replace(delivery, says_live=False)  # tests count what else there is
    subscription = placed(log, at, delivery, timers)
    return subscription, attached(subscription, room)


def test_it_catches_up_and_then_takes_what_comes() -> None:
    log = Log()
    for _ in range(4):
        log.publish()
    subscription, outlet = subscribed(log, at=1)
    assert subscription.mode is Mode.LIVE
    log.publish()
    assert outlet.numbers == [2, 3, 4, 5]


def test_older_frames_are_read_page_by_page() -> None:
    log = Log(ring=2)
    for _ in range(10):
        log.publish()
    _, outlet = subscribed(log)
    while log.pages:
        log.answer()
    assert outlet.numbers == list(range(1, 11))


def test_a_repeat_is_ignored_and_a_hole_is_filled() -> None:
    log = Log()
    log.publish()
    _, outlet = subscribed(log)
    log.channel.accept([log.events[0]])
    log.publish(missed=True)
    log.publish()
    log.answer()
    assert outlet.numbers == [1, 2, 3]


def test_a_full_client_is_sent_nothing_until_it_drains_and_misses_nothing() -> None:
    log = Log(ring=100)
    subscription, outlet = subscribed(log, room=4)
    for _ in range(20):
        log.publish("log")
    assert len(outlet.frames) == 4
    while subscription.mode is not Mode.LIVE:
        outlet.drain()
    assert outlet.numbers == list(range(1, 21))


def test_a_slow_client_far_behind_gets_the_newest_progress_and_every_other_event() -> None:
    log = Log(ring=1000)
    subscription, outlet = subscribed(log, room=2)
    for i in range(200):
        log.publish("log" if i % 50 == 49 else "progress")
    outlet.room = 1_000_000
    outlet.drain()
    logs = [f.n for f in outlet.frames if f.type == b"log"]
    assert logs == [50, 100, 150, 200]
    assert len(outlet.numbers) < CONFLATE_OVER
    assert outlet.numbers == sorted(set(outlet.numbers))
    tally = subscription._policy.tally
    assert tally.conflated == 200 - len(outlet.numbers)
    assert (tally.slowed, tally.caught_up) == ({"test": 1}, 1)


def test_a_resuming_client_gets_every_progress_event() -> None:
    log = Log(ring=1000)
    for _ in range(200):
        log.publish()
    _, outlet = subscribed(log)
    assert outlet.numbers == list(range(1, 201))


def test_trimmed_history_is_told_by_a_snapshot() -> None:
    log = Log(ring=2)
    for _ in range(10):
        log.publish()
    log.trimmed = 5
    _subscription, outlet = subscribed(log, at=1)
    log.answer()
    log.answer()
    assert outlet.numbers == [-10]
    assert b'"reset":"trimmed"' in outlet.frames[-1].wire
    log.publish()
    assert outlet.numbers == [-10, 11]


def test_what_was_being_read_when_history_was_lost_is_not_believed() -> None:
    log = Log(ring=2)
    for _ in range(10):
        log.publish()
    subscription = placed(log, 3)
    outlet = attached(subscription)
    subscription.reset("lost")
    log.answer()
    assert outlet.numbers == [-3]
    assert b'"reset":"lost"' in outlet.frames[-1].wire
    log.answer()
    log.answer()
    assert outlet.numbers == [-3, *range(4, 11)]


def test_one_whose_history_was_lost_before_it_began_begins_with_that_snapshot_alone() -> None:
    log = Log()
    log.publish()
    subscription = Subscription(log.channel, ALL, Timers().policy())
    log.channel.add(subscription)
    subscription.reset("lost")
    subscription.begin(1, b"1001-0", [snapshot(1)])
    outlet = attached(subscription)
    log.publish()
    log.answer()
    assert outlet.types == ["snapshot", "progress", "progress"]
    assert b'"reset":"lost"' in outlet.frames[1].wire
    assert b'"n":0' in outlet.frames[1].wire


LOST = 4  # of 10 events


@pytest.mark.parametrize(("behind", "told"), [(0, [-6, 7, 8]), (3, [-6, 7, 8]), (5, [6, 7, 8])])
@pytest.mark.parametrize("late_ms", [0, -2])
def test_after_a_loss_all_that_is_stored_follows_the_last_event_that_is_shared(
    behind: int, told: list[int], late_ms: int
) -> None:
    """Whose last event is left needs no reset. The clock of the other Redis may be behind."""
    log = Log(ring=8)
    for _ in range(10 - behind):
        log.publish()
    subscription = placed(log, 10 - behind)
    outlet = attached(subscription)
    if behind:
        subscription.pause_writing()
    for _ in range(behind):
        log.publish()
    del log.events[-LOST:]
    for n in (7, 8):
        log.events.append(event(n, "log")._replace(position=b"%d-5" % (1_010 + n - 6 + late_ms)))
    log.channel.reload()
    log.answer()
    subscription.resume_writing()
    while log.loading or log.snapshots or log.pages:
        log.answer()
    assert outlet.numbers == told
    assert subscription.mode is Mode.LIVE


def test_a_page_that_leads_nowhere_does_not_go_round_for_ever() -> None:
    log = Log(ring=1)
    for _ in range(5):
        log.publish()
    subscription, _ = subscribed(log)
    log.pages.clear()
    subscription.take_page(())
    assert len(log.snapshots) == 1


def test_the_end_closes_it_once() -> None:
    log = Log()
    closed: list[str] = []
    subscription = Subscription(log.channel, ALL, Timers().policy(closed))
    log.channel.add(subscription)
    subscription.begin(0, b"0-0")
    outlet = attached(subscription)
    log.publish("end")
    subscription.close("client")
    assert (outlet.types[-1], outlet.closed, closed, log.emptied) == ("end", True, ["ended"], 1)
    subscription.offer([frame(2)])
    subscription.pause_writing()
    subscription.resume_writing()
    subscription.pump()
    subscription.reset("lost")
    subscription.take_page([frame(2)])
    assert subscription.tick(1e9) is None
    assert not log.snapshots


def test_an_ended_operation_is_told_as_snapshot_and_end() -> None:
    log = Log()
    log.publish()
    log.publish("end")
    subscription = placed(log)
    subscription.begin(1, b"1002-0", [snapshot(2, "succeeded")])
    outlet = attached(subscription)
    assert outlet.types == ["snapshot", "end"]
    assert b"\nid:" not in b"\n" + outlet.frames[1].wire
    assert outlet.closed


def test_one_that_closed_before_its_way_out_opened_ends_it() -> None:
    subscription = placed(Log())
    subscription.close("draining", reconnect=True)
    assert attached(subscription).closed


def test_awaiting_it_begins_with_a_snapshot() -> None:
    log = Log()
    subscription = waiting(log)
    outlet = attached(subscription)
    log.publish("status")
    log.answer()
    log.publish()
    assert outlet.numbers == [-1, 2]


def test_awaiting_an_operation_whose_events_the_client_has_it_has_the_client_ask_again() -> None:
    """They are lost, and another operation has the id: the client may not be permitted to read that."""
    log = Log()
    subscription = waiting(log, b"5-5")
    outlet = attached(subscription)
    log.publish("status")
    log.answer()
    assert outlet.reasons() == ["lost"]


def test_awaiting_in_vain_it_says_so() -> None:
    log = Log()
    subscription = waiting(log)
    outlet = attached(subscription)
    subscription.stop_awaiting()
    assert outlet.reasons() == ["not-found"]
    assert outlet.closed


def test_only_wanted_types_pass_and_the_end_always() -> None:
    log = Log()
    _subscription, outlet = subscribed(log, delivery=Delivery(types=frozenset({b"log"})))
    for type in ("progress", "log", "status", "end"):
        log.publish(type)
    assert outlet.types == ["log", "end"]


class TestAnInterval:
    def make(self) -> tuple[Log, Timers, Subscription, Outlet]:
        log, timers = Log(ring=1000), Timers()
        subscription, outlet = subscribed(log, delivery=Delivery(interval_s=0.5), timers=timers)
        return log, timers, subscription, outlet

    def test_lets_the_newest_progress_of_each_through(self) -> None:
        log, timers, _subscription, outlet = self.make()
        for _ in range(10):
            log.publish()
            timers.advance(0.125)
        timers.advance(1)
        assert outlet.numbers == [1, 4, 8, 10]

    def test_lets_other_events_pass_in_order(self) -> None:
        log, timers, _subscription, outlet = self.make()
        for type in ("progress", "progress", "progress", "log", "progress", "end"):
            log.publish(type)
        assert outlet.numbers == [1, 3, 4, 5, 6]
        timers.advance(10)
        assert outlet.numbers[-1] == 6

    def test_leaves_no_timer_behind(self) -> None:
        log, timers, subscription, _ = self.make()
        log.publish()
        log.publish()
        subscription.close()
        assert all(timer.cancelled for timer in timers.timers)


class TestTheWheel:
    def test_has_it_ping(self) -> None:
        subscription, outlet = subscribed(Log())
        assert subscription.tick(15) == 15
        assert outlet.frames[-1].wire == b": ping\n"

    def test_ends_it_at_its_age(self) -> None:
        subscription, outlet = subscribed(Log())
        assert subscription.tick(3590) == 10
        assert subscription.tick(3600) is None
        assert outlet.reasons() == ["max-age"]
        assert outlet.closed

    @pytest.mark.parametrize("now", [15, 3600])
    def test_cuts_off_one_whose_outlet_breaks(self, now: float) -> None:
        subscription, outlet = subscribed(Log())

        def fail(_: object) -> None:
            raise RuntimeError("broken")

        outlet.write = fail  # type: ignore[method-assign]
        assert subscription.tick(now) is None
        assert subscription.mode is Mode.CLOSED
        assert outlet.aborted

    def test_cuts_off_a_client_that_takes_nothing(self) -> None:
        log, timers = Log(), Timers()
        subscription, outlet = subscribed(log, room=2, timers=timers)
        log.publish()
        assert subscription.tick(15) is not None
        before = len(outlet.frames)
        assert subscription.tick(59) is not None
        assert len(outlet.frames) == before
        assert subscription.tick(61) is None
        assert outlet.aborted

    def test_spares_one_that_is_only_slow(self) -> None:
        log, timers = Log(), Timers()
        subscription, outlet = subscribed(log, room=2, timers=timers)
        for _ in range(5):
            log.publish()
            timers.advance(50)
            outlet.drain()
            assert subscription.tick(timers.now) is not None


@given(st.lists(st.sampled_from(["progress", "log", "status"]), max_size=30))
def test_conflating_drops_only_progress_that_progress_follows(types: list[str]) -> None:
    frames = [frame(n, type) for n, type in enumerate(types, 1)]
    kept = conflate(frames)
    assert [f for f in kept if f.type != b"progress"] == [f for f in frames if f.type != b"progress"]
    assert [f.n for f in kept] == sorted(f.n for f in kept)
    for dropped in set(frames) - set(kept):
        assert frames[frames.index(dropped) + 1].type == b"progress"
    assert conflate(kept) == kept


STEPS = st.lists(
    st.one_of(
        st.just("publish"),
        st.just("miss"),  # published, but the feed loses it
        st.just("repeat"),
        st.just("drain"),
        st.just("answer"),
        st.just("trim"),
        st.just("reload"),
    ),
    max_size=80,
)


@settings(max_examples=400)
@given(STEPS, st.integers(1, 8), st.integers(2, 6), st.integers(0, 10))
def test_whatever_happens_each_event_comes_once_in_order_or_its_loss_is_told(
    steps: list[str], ring: int, room: int, older: int
) -> None:
    log = Log(ring, older)
    subscription, outlet = subscribed(log, room=room)
    for step in steps:
        if step in ("publish", "miss"):
            log.publish("log", missed=step == "miss")
        elif step == "repeat" and log.events:
            log.channel.accept(log.events[-1:])
        elif step == "drain":
            outlet.drain()
        elif step == "answer":
            log.answer()
        elif step == "trim":
            log.trimmed = max(log.trimmed, len(log.events) - 3)
        elif step == "reload":
            log.channel.reload()
        assert outlet.held <= room + max(ring, 3), "memory is bounded: what the outlet has room for, and one slice"
    log.publish("log")  # anything that was missed would show now
    for _ in range(200):
        outlet.drain()
        log.answer()
    expected = None
    for n in outlet.numbers:
        assert n < 0 or expected is None or n == expected, outlet.numbers
        expected = abs(n) + 1
    if outlet.numbers[0] > 0:
        assert outlet.numbers[0] == 1
    assert expected == len(log.events) + 1
    assert subscription.mode is Mode.LIVE


def test_one_that_closed_before_it_knew_what_to_await_stays_closed() -> None:
    subscription = placed(Log())
    subscription.close("draining", reconnect=True)
    subscription.wait()
    assert subscription.mode is Mode.CLOSED


def test_a_snapshot_that_comes_before_the_way_out_is_open_is_kept_for_it() -> None:
    log = Log()
    subscription = waiting(log)
    log.publish()
    log.answer()
    outlet = attached(subscription)
    log.publish()
    assert outlet.numbers == [-1, 2]


def test_a_first_page_is_sent_as_far_as_there_is_room() -> None:
    log = Log(ring=100)
    for _ in range(20):
        log.publish("log", data=b'"' + b"x" * SLICE_BYTES + b'"')
    subscription = placed(log)
    subscription.begin(0, b"0-0", log.channel.after(0) or ())
    outlet = attached(subscription, room=5)
    assert outlet.held == 5, "slices of one"
    while subscription.mode is not Mode.LIVE:
        outlet.drain()
    assert outlet.numbers == list(range(1, 21))


def test_those_who_are_live_are_written_the_same_object_and_what_came_at_once_in_one_write() -> None:
    log = Log()
    writes: list[object] = []
    for _ in range(3):
        _, outlet = subscribed(log)
        outlet.write = writes.append  # type: ignore[method-assign, assignment]
        outlet.subscription.fall_back()
        outlet.subscription.pump()
    log.channel.accept([event(1), event(2)])
    assert len(writes) == 3
    assert [f.n for f in writes[0]] == [1, 2]  # type: ignore[attr-defined]
    assert writes[0] is writes[1] is writes[2]


@pytest.mark.parametrize("types", [None, frozenset([b"log"])])
def test_those_who_missed_the_same_are_written_the_same_objects(types: frozenset[bytes] | None) -> None:
    log, timers, delivery = Log(ring=100), Timers(), Delivery(types)
    for _ in range(3):
        log.publish("log", data=b'"' + b"x" * SLICE_BYTES + b'"')
        log.publish()
    policy = replace(timers.policy(), replays=Replays(1_000_000))

    def writes(at: int) -> list[Sequence[Frame]]:
        subscription = Subscription(log.channel, delivery, policy)
        log.channel.add(subscription)
        subscription.begin(at, b"%d-0" % (1_000 + at))
        outlet, written = Outlet(subscription), list[Sequence[Frame]]()
        outlet.write = written.append  # type: ignore[method-assign, assignment]
        subscription.attach(outlet)
        return written[1:]  # the first says when to reconnect, to each at another moment

    first, second, other = writes(1), writes(1), writes(2)
    assert len(first) > 1
    assert [it is also for it, also in zip(first, second, strict=True)] == [True] * len(first)
    sent = [it.n for part in first for it in part if it.n]
    assert sent == ([2, 3, 4, 5, 6] if types is None else [3, 5])
    assert [it.n for part in other for it in part if it.n] == [n for n in sent if n > 2]
    log.events = [event(n, "log", data=b'"anew"') for n in range(1, 7)]
    log.channel.reload()
    log.answer()
    assert b"anew" in writes(1)[0][0].wire, "a log that was written anew is not taken for the one before"


def test_what_is_kept_for_others_who_missed_the_same_is_bounded() -> None:
    replays = Replays(kept_bytes=SLICE_BYTES * 3)
    reading = Reading("a", None, BOOKMARK_EVERY, UNENCODED, says_live=False)
    frames = [make_frame(event(n, data=b'"' + b"x" * SLICE_BYTES + b'"')) for n in range(1, 11)]
    for _ in range(2):
        found = [replays.slice(frames, start, reading) for start in range(10)]
        assert [it.last.n for it in found] == list(range(1, 11))
        assert sum(it.kept_bytes for it in replays) <= SLICE_BYTES * 3
        assert [*replays] == found[-len([*replays]) :], "the oldest goes first"


def test_an_outlet_that_breaks_takes_nobody_with_it() -> None:
    log = Log()
    broken, _ = subscribed(log)
    broken.fall_back()

    def fail(_: object) -> None:
        raise RuntimeError("broken")

    broken.outlet.write = fail  # type: ignore[method-assign]
    broken.pump()
    other, outlet = subscribed(log)
    log.publish()
    assert (broken.mode, other.mode, outlet.numbers) == (Mode.CLOSED, Mode.LIVE, [1])


def test_what_came_at_once_leaves_in_writes_of_a_bounded_size() -> None:
    log = Log(ring=100)
    subscription, outlet = subscribed(log, room=3)
    log.channel.accept([event(n, "log", data=b'"' + b"x" * SLICE_BYTES + b'"') for n in range(1, 20)])
    assert (outlet.held, subscription.n) == (3, 2), "and the opening"


def test_nothing_follows_the_end() -> None:
    log = Log()
    _, outlet = subscribed(log)
    log.channel.accept([event(1), event(2, "end"), event(3)])
    assert (outlet.types[-1], outlet.closed) == ("end", True)


def test_one_that_is_full_falls_back_to_where_it_stood() -> None:
    log = Log(ring=2)
    subscription, _outlet = subscribed(log, room=2)
    log.channel.accept([event(1), event(2)])
    assert (subscription.mode, subscription.n, subscription.position) == (Mode.CATCHING_UP, 2, b"1002-0")


@pytest.mark.parametrize("interval_s", [0, 0.5])
def test_one_whom_the_end_fills_is_closed_too(interval_s: float) -> None:
    log = Log()
    subscription, outlet = subscribed(log, room=3, delivery=Delivery(interval_s=interval_s))
    log.publish("log")
    log.publish("end")
    assert (outlet.held, outlet.closed, subscription.mode) == (3, True, Mode.CLOSED)


def test_one_told_more_than_its_channel_knew_learns_that_storage_has_lost_it() -> None:
    log = Log(ring=10, older=10)
    subscription = placed(log)
    subscription.begin(12, b"1012-0", [snapshot(12)])  # the feed has not reported it yet
    outlet = attached(subscription)
    for n in (11, 12, 13):  # instead of the events that a restart of Redis has lost
        log.events.append(event(n, "log")._replace(position=b"%d-0" % (2_000 + n)))
        log.channel.accept(log.events[-1:])
    for _ in range(9):
        log.answer()
    assert outlet.numbers[0] == -12
    assert b'"reset":"lost"' in outlet.frames[2].wire
    assert outlet.numbers[-1] in (13, -13)


def test_one_told_of_an_end_before_its_channel_is_not_told_that_it_was_lost() -> None:
    log = Log(ring=10, older=10)
    subscription = placed(log)
    subscription.begin(11, b"1012-0", [snapshot(12, "succeeded")])
    outlet = attached(subscription)
    log.publish("log")
    log.publish("end")
    assert (outlet.numbers, outlet.closed) == ([-12, 12], True)


def test_one_with_a_pace_whose_outlet_breaks_takes_nobody_with_it() -> None:
    log = Log()
    paced = [subscribed(log, delivery=Delivery(interval_s=1)) for _ in range(5)]

    def fail(_: object) -> None:
        raise RuntimeError("broken")

    paced[2][1].write = fail  # type: ignore[method-assign]
    log.publish("log")
    assert [outlet.numbers for _, outlet in paced] == [[1], [1], [], [1], [1]]
    assert paced[2][0].mode is Mode.CLOSED
