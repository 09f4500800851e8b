from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.events import Frame, snapshot_frame
from broker.snapshots import FIELDS, read_snapshot
from broker.subscription import CONFLATE_OVER, Delivery, Mode, Subscription, conflate
from tests.broker.harness import ALL, Outlet, Timers, frame


def snapshot(n: int, status: str = "running", reset: str | None = None) -> Frame:
    fields = {
        "spec": b'{"kind":"k","title":null,"owner":null,"tags":[],"parent":null}',
        "status": status.encode(),
        "n": b"%d" % n,
        "position": b"%d-0" % (1_000 + n),
        "created": b"1000",
    }
    return snapshot_frame(read_snapshot("a", [fields.get(name) for name in FIELDS]), reset)


class Log:
    """A source whose log is a list of frames, of which the last `ring` are at hand; reads come back when told."""

    def __init__(self, ring: int = 5) -> None:
        self.frames: list[Frame] = []
        self.ring, self.trimmed = ring, 0
        self.loaded = True
        self.pages: list[tuple[Subscription, int]] = []
        self.snapshots: list[tuple[Subscription, str | None]] = []
        self.left: list[Subscription] = []

    def publish(self, type: str = "progress") -> Frame:
        self.frames.append(frame(len(self.frames) + 1, type))
        return self.frames[-1]

    def after(self, n: int) -> Sequence[Frame] | None:
        if n >= len(self.frames):
            return ()
        return self.frames[n:] if n >= len(self.frames) - self.ring else None

    def read_page(self, subscription: Subscription) -> None:
        self.pages.append((subscription, subscription.n))

    def read_snapshot(self, subscription: Subscription, reset: str | None) -> None:
        self.snapshots.append((subscription, reset))

    def leave(self, subscription: Subscription) -> None:
        self.left.append(subscription)

    def answer(self, length: int = 3) -> None:
        pages, self.pages = self.pages, []
        for subscription, n in pages:
            if n < self.trimmed:
                subscription.take_page((), "trimmed")
            else:
                subscription.take_page(self.frames[n : n + length])
        snapshots, self.snapshots = self.snapshots, []
        for subscription, reset in snapshots:
            subscription.take_snapshot(snapshot(len(self.frames), reset=reset), done=False)


def subscribed(
    log: Log, *, at: int = 0, room: int = 1_000_000, delivery: Delivery = ALL, timers: Timers | None = None
) -> tuple[Subscription, Outlet]:
    subscription = Subscription(log, delivery, (timers or Timers()).terms())
    subscription.begin(at, b"%d-0" % (1_000 + at))
    outlet = Outlet(room)
    subscription.attach(outlet)
    return subscription, outlet


def test_it_catches_up_and_then_takes_what_comes() -> None:
    log = Log()
    for _ in range(4):
        log.publish()
    subscription, outlet = subscribed(log, at=1)
    assert subscription.mode is Mode.LIVE
    subscription.offer(log.publish())
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
    subscription, outlet = subscribed(log)
    subscription.offer(log.frames[0])
    log.publish()
    subscription.offer(log.publish())
    assert outlet.numbers == [1, 2, 3]


def test_a_full_client_is_sent_nothing_until_it_drains_and_misses_nothing() -> None:
    log = Log(ring=100)
    subscription, outlet = subscribed(log, room=4)
    for _ in range(20):
        subscription.offer(log.publish("log"))
    assert len(outlet.frames) == 4
    while outlet.numbers[-1] < 20:
        outlet.drain(subscription)
    assert outlet.numbers == list(range(1, 21))
    assert subscription.mode is Mode.LIVE


def test_a_slow_client_far_behind_gets_the_newest_progress_and_every_other_event() -> None:
    log = Log(ring=1000)
    subscription, outlet = subscribed(log, room=2)
    for i in range(200):
        subscription.offer(log.publish("log" if i % 50 == 49 else "progress"))
    outlet.room = 1_000_000
    outlet.drain(subscription)
    logs = [f.n for f in outlet.frames if f.type == b"log"]
    assert logs == [50, 100, 150, 200]
    assert len(outlet.numbers) < CONFLATE_OVER
    assert outlet.numbers == sorted(set(outlet.numbers))


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
    subscription, outlet = subscribed(log, at=1)
    log.answer()
    log.answer()
    assert outlet.numbers == [-10]
    assert b'"reset":"trimmed"' in outlet.frames[-1].wire
    subscription.offer(log.publish())
    assert outlet.numbers == [-10, 11]


def test_what_was_being_read_when_history_was_lost_is_not_believed() -> None:
    log = Log(ring=2)
    for _ in range(10):
        log.publish()
    subscription, outlet = subscribed(log)
    subscription.reset("lost")
    log.answer()
    assert outlet.numbers == [-10]
    assert b'"reset":"lost"' in outlet.frames[-1].wire


def test_a_page_that_leads_nowhere_does_not_go_round_for_ever() -> None:
    log = Log(ring=1)
    for _ in range(5):
        log.publish()
    subscription, _ = subscribed(log)
    log.pages.clear()
    subscription.take_page(())
    assert log.snapshots == [(subscription, "lost")]


def test_the_end_closes_it_once() -> None:
    log, timers = Log(), Timers()
    closed: list[str] = []
    subscription = Subscription(log, ALL, timers.terms(closed))
    outlet = Outlet()
    subscription.attach(outlet)
    subscription.offer(log.publish("end"))
    subscription.close("client")
    assert (outlet.types[-1], outlet.closed, closed, log.left) == ("end", True, ["ended"], [subscription])
    subscription.offer(frame(2))
    subscription.drained()
    subscription.pump()
    subscription.reset("lost")
    subscription.take_page([frame(2)])
    assert subscription.tick(1e9) is None
    assert log.snapshots == []


def test_an_ended_operation_is_told_as_snapshot_and_end() -> None:
    log = Log()
    log.publish()
    log.publish("end")
    subscription = Subscription(log, ALL, Timers().terms())
    subscription.begin(1, b"1002-0", [snapshot(2, "succeeded")])
    outlet = Outlet()
    subscription.attach(outlet)
    assert outlet.types == ["snapshot", "end"]
    assert b"\nid:" not in b"\n" + outlet.frames[1].wire
    assert outlet.closed


def test_one_that_closed_before_its_way_out_opened_ends_it() -> None:
    subscription = Subscription(Log(), ALL, Timers().terms())
    subscription.close("draining", reconnect=True)
    outlet = Outlet()
    subscription.attach(outlet)
    assert outlet.closed


def test_awaiting_it_begins_with_a_snapshot() -> None:
    log = Log()
    subscription, outlet = subscribed(log)
    subscription.wait()
    subscription.offer(log.publish("status"))
    log.answer()
    subscription.offer(log.publish())
    assert outlet.numbers == [-1, 2]


def test_awaiting_in_vain_it_says_so() -> None:
    log = Log()
    subscription, outlet = subscribed(log)
    subscription.wait()
    subscription.give_up()
    assert outlet.reasons() == ["not-found"]
    assert outlet.closed


def test_only_wanted_types_pass_and_the_end_always() -> None:
    log = Log()
    subscription, outlet = subscribed(log, delivery=Delivery(types=frozenset({b"log"})))
    for type in ("progress", "log", "status", "end"):
        subscription.offer(log.publish(type))
    assert outlet.types == ["log", "end"]


class TestAnInterval:
    def make(self) -> tuple[Log, Timers, Subscription, Outlet]:
        log, timers = Log(ring=1000), Timers()
        subscription, outlet = subscribed(log, delivery=Delivery(interval_s=0.5), timers=timers)
        return log, timers, subscription, outlet

    def test_lets_the_newest_progress_of_each_through(self) -> None:
        log, timers, subscription, outlet = self.make()
        for _ in range(10):
            subscription.offer(log.publish())
            timers.advance(0.125)
        timers.advance(1)
        assert outlet.numbers == [1, 4, 8, 10]

    def test_lets_other_events_pass_in_order(self) -> None:
        log, timers, subscription, outlet = self.make()
        for type in ("progress", "progress", "progress", "log", "progress", "end"):
            subscription.offer(log.publish(type))
        assert outlet.numbers == [1, 3, 4, 5, 6]
        timers.advance(10)
        assert outlet.numbers[-1] == 6

    def test_leaves_no_timer_behind(self) -> None:
        log, timers, subscription, _ = self.make()
        subscription.offer(log.publish())
        subscription.offer(log.publish())
        subscription.close()
        assert all(timer.cancelled for timer in timers.timers)


class TestTheWheel:
    def test_has_it_ping(self) -> None:
        subscription, outlet = subscribed(Log())
        assert subscription.tick(15) == 15
        assert outlet.frames[-1].wire == b": ping\n\n"

    def test_ends_it_at_its_age(self) -> None:
        subscription, outlet = subscribed(Log())
        assert subscription.tick(3590) == 10
        assert subscription.tick(3600) is None
        assert outlet.reasons() == ["max-age"]
        assert outlet.closed

    def test_cuts_off_a_client_that_takes_nothing(self) -> None:
        log, timers = Log(), Timers()
        subscription, outlet = subscribed(log, room=2, timers=timers)
        subscription.offer(log.publish())
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
            subscription.offer(log.publish())
            timers.advance(50)
            outlet.drain(subscription)
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
        st.just("unload"),
        st.just("load"),
    ),
    max_size=80,
)


@settings(max_examples=400)
@given(STEPS, st.integers(1, 8), st.integers(2, 6), st.integers(0, 10))
def test_whatever_happens_each_event_comes_once_in_order_or_its_loss_is_told(
    steps: list[str], ring: int, room: int, older: int
) -> None:
    log = Log(ring)
    for _ in range(older):
        log.publish("log")
    subscription, outlet = subscribed(log, room=room)
    for step in steps:
        if step == "publish":
            made = log.publish("log")
            if log.loaded:
                subscription.offer(made)
        elif step == "miss":
            log.publish("log")
        elif step == "repeat" and log.frames and log.loaded:
            subscription.offer(log.frames[-1])
        elif step == "drain":
            outlet.drain(subscription)
        elif step == "answer":
            log.answer()
        elif step == "trim":
            log.trimmed = max(log.trimmed, len(log.frames) - 3)
        elif step == "unload":
            log.loaded = False
        elif step == "load":
            log.loaded = True
            subscription.pump()
        assert outlet.held <= room + 3, "memory is bounded: what the outlet has room for, and one page"
    log.loaded = True
    subscription.offer(log.publish("log"))  # whatever was missed shows now
    for _ in range(200):
        outlet.drain(subscription)
        subscription.pump()
        log.answer()
    expected = None
    for n in outlet.numbers:
        assert n < 0 or expected is None or n == expected, outlet.numbers
        expected = abs(n) + 1
    if outlet.numbers[0] > 0:
        assert outlet.numbers[0] == 1
    assert expected == len(log.frames) + 1
    assert subscription.mode is Mode.LIVE


def test_one_that_closed_before_it_knew_what_to_await_stays_closed() -> None:
    subscription = Subscription(Log(), ALL, Timers().terms())
    subscription.close("draining", reconnect=True)
    subscription.wait()
    assert subscription.mode is Mode.CLOSED


def test_a_snapshot_that_comes_before_the_way_out_is_open_is_kept_for_it() -> None:
    log = Log()
    log.publish()
    subscription = Subscription(log, ALL, Timers().terms())
    subscription.wait()
    subscription.offer(log.frames[0])
    log.answer()
    outlet = Outlet()
    subscription.attach(outlet)
    subscription.offer(log.publish())
    assert outlet.numbers == [-1, 2]


def test_a_first_page_is_sent_as_far_as_there_is_room() -> None:
    log = Log(ring=100)
    frames = [log.publish("log") for _ in range(20)]
    subscription = Subscription(log, ALL, Timers().terms())
    subscription.begin(0, b"0-0", frames)
    outlet = Outlet(room=5)
    subscription.attach(outlet)
    assert outlet.held == 5
    while subscription.mode is not Mode.LIVE:
        outlet.drain(subscription)
    assert outlet.numbers == list(range(1, 21))
