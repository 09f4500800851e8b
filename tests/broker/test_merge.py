"""A bundle without I/O: each event is sent once and in order, whatever happens, and wherever the connection breaks."""

from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from progress_broker.bundle import cursor
from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.discovery import begin
from progress_broker.bundle.lane import Lane
from progress_broker.bundle.member import BundleMember
from progress_broker.bundle.merge import SearchGuard
from progress_broker.bundle.query import OperationQuery
from progress_broker.history.losses import Lost
from progress_broker.live.channel import Channel
from progress_broker.live.history import RingLimits
from progress_broker.model.event import END, MISSING, OPERATIONS, SNAPSHOT, Event
from progress_broker.model.index_terms import IndexedOperation
from progress_broker.model.operation import Operation
from progress_broker.model.position import order
from progress_broker.operations.snapshot import FIELDS, read_snapshot
from progress_broker.stream.batching import BOOKMARK_EVERY
from progress_broker.stream.frames import Frame, make_frame, snapshot_frame
from progress_broker.stream.outlet import UNENCODED
from tests.broker.harness import ALL, Timers
from tests.losses import shared_with

LANES = 3
TERMS = frozenset({b"owner:ann"})


class Log:
    """An operation's log and its channel. The test decides when its reads finish."""

    def __init__(self, name: str, ring: int, first: Event) -> None:
        self.name, self.ring, self.events = name, ring, [first]
        self.trimmed = 0
        self.gone = False
        self.loading = False
        self.pages: list[bytes] = []
        self.snapshots: list[Lost | None] = []
        self.channel = Channel(name, self, RingLimits(ring, 1_000_000))
        self.channel.loaded_with(self.events[-ring:])

    def load(self, channel: Channel) -> None:
        self.loading = True

    def history_length(self, channel: Channel) -> None:
        channel.bookmark_every = BOOKMARK_EVERY

    def page(self, channel: Channel, position: bytes) -> None:
        self.pages.append(position)

    def snapshot(self, channel: Channel, lost: Lost | None) -> None:
        self.snapshots.append(lost)

    def empty(self, channel: Channel) -> None: ...

    @property
    def done(self) -> bool:
        return self.events[-1].type == END

    def shown(self, reset: str | None = None) -> Frame:
        return snapshot_frame(self.operation(), reset)

    def operation(self, n: int | None = None) -> Operation:
        n = n or len(self.events)
        fields = {
            "schema": b"2",
            "spec": b'{"kind":"k"}',
            "status": b"succeeded" if self.events[n - 1].type == END else b"running",
            "n": b"%d" % n,
            "position": self.events[n - 1].position,
            "created": b"1000",
        }
        return read_snapshot(self.name, [fields.get(name) for name in FIELDS])

    def reset_since(self, position: bytes | None) -> bool:
        """Whether a client that resumes with such a cursor gets a reset."""
        return position is not None and self.trimmed > 0 and order(self.events[self.trimmed].position) > order(position)

    def after(self, position: bytes, length: int = 3) -> tuple[list[Event], str | None]:
        if self.gone:
            return [], "lost"
        events = [event for event in self.events if order(event.position) > order(position)]
        if events and events[0].n <= self.trimmed:
            return [], "trimmed"
        return events[:length], None

    def answer(self) -> None:
        if self.loading:
            self.loading = False
            self.channel.loaded_with([] if self.gone else self.events[-self.ring :])
        pages, self.pages = self.pages, []
        for position in pages:
            self.channel.page_read(position, *self.after(position))
        snapshots, self.snapshots = self.snapshots, []
        for lost in snapshots:
            if self.gone:
                self.channel.close("gone")
            else:
                self.channel.snapshot_read(lost, self.operation(), shared_with(self.events, lost))


class Client:
    """What a client has received over all its connections, and its cursor."""

    kind = "test"
    client = ""
    encoding = UNENCODED

    def __init__(self, room: int) -> None:
        self.room, self.held = room, 0
        self.bundle: Bundle | None = None
        self.frames: list[Frame] = []  # on this connection
        self.cursor: str | None = None
        self.next: dict[str, int] = {}
        self.again: set[str] = (
            set()
        )  # operations that may be sent again, because the cursor is marked as partial for their lane
        self.running: set[str] = set()  # operations that were reported as not ended
        self.logs: dict[str, Log] = {}

    def write(self, frames: Sequence[Frame]) -> None:
        assert self.bundle is not None
        self.frames += frames
        self.held += len(frames)
        if self.held >= self.room:
            self.bundle.pause_writing()

    def drain(self) -> None:
        assert self.bundle is not None
        self.held = 0
        self.bundle.resume_writing()

    def close(self) -> None: ...

    abort = close

    def read(self, most: int) -> None:
        """Receive only the first frames of this connection."""
        id: bytes | None = None
        for frame in self.frames[:most]:
            if frame.wire.startswith(b"id: "):
                id = frame.wire[4:-1]
                continue
            if frame.type in (OPERATIONS, MISSING) or frame.n:
                self._told(frame, orjson.loads(frame.envelope))
            if id is not None:
                self.cursor, id = id.decode(), None
                self._check()
        self.frames = []

    @property
    def places(self) -> dict[int, LanePosition]:
        return cursor.parse(self.cursor, LANES) if self.cursor else {}

    def _check(self) -> None:
        """A client that resumes with this cursor must get exactly the events that it has not received."""
        assert len(self.places) == LANES
        for name, log in self.logs.items():
            place = self.places[lane_of(name)]
            upto = [event for event in log.events if order(event.position) <= order(place.position)]
            told = self.next.get(name)
            if log.reset_since(place.trimmed_since):
                continue
            if not (place.partial or log.gone) and upto and not (told is None and upto[-1].type == END):
                assert told is not None, f"{name} is not told, and would not be"
                assert told - 1 == upto[-1].n, f"{name} is told up to {told - 1}, and would be after {upto[-1].n}"

    def _told(self, frame: Frame, event: dict[str, Any]) -> None:
        if frame.type == OPERATIONS:
            for name in self.running - set(event["operations"]):
                assert self.logs[name].gone, f"{name} ended, and its client will never hear of it"
                self._forget(name)
            return
        name = str(event["operation"])
        if frame.type == MISSING:
            assert self.logs[name].gone, event
            self._forget(name)
            return
        expected = self.next.get(name)
        done = frame.type == END
        if frame.type == SNAPSHOT:
            done = bool(event["data"]["done"])
            assert expected is None or frame.n >= expected - 1, "no snapshot is older than what was told"
            if expected is not None and name not in self.again:
                assert event.get("reset") == "trimmed", f"{name} is told anew without a reason"
            self.again.discard(name)
            self.next[name] = frame.n + 1 - done
            self.running.add(name)
        else:
            assert frame.n == expected, f"event {frame.n} of {name} comes where {expected} should"
            self.next[name] = frame.n + 1
        if frame.type == END:
            self.running.discard(name)

    def _forget(self, name: str) -> None:
        self.running.discard(name)
        self.next.pop(name, None)


def lane_of(name: str) -> int:
    return int(name) % LANES


class World:
    """Logs, the feeds of their lanes, and a client that follows all of them (`bundle.Home`)."""

    def __init__(self, ring: int, room: int) -> None:
        self.ring, self.room = ring, room
        self.time = 1_000
        self.logs: dict[str, Log] = {}
        self.feeds: list[list[tuple[str, Event]]] = [[] for _ in range(LANES)]
        self.watermarks = dict.fromkeys(range(LANES), b"1000-0")
        self.places: list[tuple[Bundle, BundleMember, bytes | None, str | None]] = []
        self.to_place: list[tuple[Bundle, BundleMember, bytes | None]] = []
        self.searches: list[tuple[Bundle, Lane, SearchGuard]] = []
        self.client = Client(room)
        self.client.logs = self.logs
        self.connect()

    # bundle.Home

    def mark_dirty(self, bundle: Bundle) -> None: ...

    def is_up_to_date(self, lane: int) -> bool:
        return True

    def forget(self, bundle: Bundle, reason: str) -> None: ...

    def place(self, bundle: Bundle, member: BundleMember, after: bytes | None, reset: str | None = None) -> None:
        self.places.append((bundle, member, after, reset))

    # What happens

    def connect(self) -> None:
        self.bundle = Bundle(OperationQuery(terms=TERMS), ALL, Timers().policy(), self, 1_000)
        places = self.client.places
        for lane in range(LANES):
            self.bundle.merge.lane(lane, places.get(lane))
        facts = [
            IndexedOperation(name, TERMS, log.done, log.events[-1].position, log.events[0].position)
            for name, log in self.logs.items()
            if not log.gone
        ]
        begin(self.bundle, facts, lane_of)
        self.client.bundle, self.client.held = self.bundle, 0
        self.client.again = {name for name in self.logs if lane_of(name) not in places or places[lane_of(name)].partial}
        self.bundle.attach(self.client)

    def cut(self, share: float) -> None:
        self.leave(round(share * len(self.client.frames)))
        self.connect()

    def leave(self, most: int) -> None:
        self.bundle.close()
        self.client.read(most)

    def publish(self, name: str, type: str) -> None:
        log = self.logs[name]
        if not (log.done or log.gone):
            log.events.append(self.event(name, len(log.events) + 1, type))

    def delete(self, name: str) -> None:
        if not self.logs[name].gone:
            self.logs[name].gone = True
            self.time += 1
            self.feeds[lane_of(name)].append(("gone", Event(name.encode(), self.position, 0, b"gone", b"")))

    def create(self) -> None:
        name = str(len(self.logs))
        self.time += 2
        self.feeds[lane_of(name)].append(("created", Event(name.encode(), self.position, 0, b"created", b"")))
        first = Event(name.encode(), b"%d-1" % self.time, 1, b"status", b"{}")  # the next ID, as the script gives it
        self.feeds[lane_of(name)].append(("event", first))
        self.logs[name] = Log(name, self.ring, first)

    def settle(self) -> None:
        for lane in range(LANES):
            self.deliver(lane, 100)
        self.answer()
        self.client.drain()

    @property
    def position(self) -> bytes:
        return b"%d-0" % self.time

    def event(self, name: str, n: int, type: str) -> Event:
        self.time += 1
        data = b'{"status":"succeeded"}' if type == "end" else b"{}"
        made = Event(name.encode(), self.position, n, type.encode(), data)
        self.feeds[lane_of(name)].append(("event", made))
        return made

    def deliver(self, lane: int, most: int) -> None:
        some, self.feeds[lane] = self.feeds[lane][:most], self.feeds[lane][most:]
        for what, event in some:
            name = event.operation.decode()
            if what == "created":
                self.bundle.appeared(IndexedOperation(name, TERMS, False, event.position, event.position), lane)
            elif what == "gone":
                self.logs[name].channel.gone()
            else:
                self.logs[name].channel.accept([event])
        if some:
            self.watermarks[lane] = some[-1][1].position
        self.bundle.feed_advanced()
        self.bundle.flush()

    def interrupt(self, lane: int) -> None:
        """The feed is interrupted: it continues at its end, and operations that differ are read again."""
        missed, self.feeds[lane] = self.feeds[lane], []
        for name, log in self.logs.items():
            if lane_of(name) == lane and log.gone:
                log.channel.gone()
            elif lane_of(name) == lane and log.channel.n != len(log.events):
                log.channel.reload()
        if missed:
            self.watermarks[lane] = missed[-1][1].position
        searching = self.bundle.merge.searching([lane])
        self.bundle.feed_advanced()
        self.searches.append((self.bundle, self.bundle.merge.lane(lane), searching))

    def look_again(self, lane: Lane, searching: SearchGuard) -> None:
        for name, log in self.logs.items():
            if lane_of(name) == lane.number and not log.gone:
                facts = IndexedOperation(name, TERMS, log.done, log.events[-1].position, log.events[0].position)
                at = order(lane.position)
                if not (facts.done and order(facts.position) <= at):
                    self.bundle.follow(facts, lane.number, lane.position if order(facts.first) <= at else None)
        with searching:
            pass
        self.bundle.mark_dirty(lane)
        self.bundle.flush()

    def answer(self) -> None:
        """The reads in progress finish."""
        for log in self.logs.values():
            log.answer()
        searches, self.searches = self.searches, []
        for bundle, lane, searching in searches:
            if bundle is self.bundle:
                self.look_again(lane, searching)
        to_place, self.to_place = self.to_place, []
        for bundle, member, after in to_place:
            subscription, log = member.subscription, self.logs[member.operation]
            assert subscription is not None
            if not bundle.has(member):
                continue
            if log.gone:
                member.fail("gone")
                subscription.close("left")
                continue
            events, reset = ([], None) if after is None else log.after(after)
            if log.reset_since(bundle.merge.trimmed_since(member)):
                reset = "trimmed"
            if member.reset is not None:
                reset = member.reset
            elif reset is not None:
                member.owe_reset(reset)
            if reset is None and after is None and member.operation not in bundle.merge.lane(member.lane).snapshots_due:
                subscription.begin(1, log.events[0].position, [snapshot_frame(log.operation(1))])
            elif after is None or reset:
                n = len(log.events) - log.done
                subscription.begin(n, log.events[-1].position, [log.shown(reset)])
            elif events:
                subscription.begin(events[0].n - 1, after, [make_frame(event) for event in events])
            else:
                subscription.begin(len(log.events), log.events[-1].position)
            bundle.merge.placed(member)
            subscription.attach(member)
        places, self.places = self.places, []
        for bundle, member, after, _ in places:
            if bundle.has(member):
                member.follow(self.logs[member.operation].channel, ALL, Timers().policy(Reasons(member)))
                self.to_place.append((bundle, member, after))
        self.bundle.flush()


class Reasons(list[str]):
    """Notifies a member's bundle why its subscription has closed, as `on_close` does."""

    def __init__(self, member: BundleMember) -> None:
        super().__init__()
        self.member = member

    def append(self, reason: str) -> None:
        self.member.left(reason)


STEPS = st.lists(
    st.one_of(
        st.just(("create",)),
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("publish"), st.integers(0, 5), st.sampled_from(["log", "log", "log", "end"])),
        st.just(("settle",)),
        st.tuples(st.just("deliver"), st.integers(0, LANES - 1), st.integers(1, 4)),
        st.tuples(st.just("interrupt"), st.integers(0, LANES - 1)),
        st.tuples(st.just("cut"), st.floats(0, 1)),
        st.tuples(st.just("reload"), st.integers(0, 5)),
        st.tuples(st.just("trim"), st.integers(0, 5)),
        st.tuples(st.just("burst"), st.integers(0, 5)),
        st.just(("answer",)),
        st.just(("drain",)),
    ),
    max_size=120,
)


Steps = list[tuple[Any, ...]]


def play(world: World, steps: Steps) -> None:
    for step, *args in steps:
        names = list(world.logs)
        name = names[args[0] % len(names)] if names and args and isinstance(args[0], int) else None
        if step == "publish" and name:
            world.publish(name, args[1])
        elif step == "delete" and name:
            world.delete(name)
        elif step == "reload" and name:
            world.logs[name].channel.reload()
        elif step == "trim" and name:
            log = world.logs[name]
            log.trimmed = max(log.trimmed, len(log.events) - 2)
        elif step == "burst" and name:  # more than is kept, and another event amid them
            other = names[(args[0] + LANES) % len(names)]
            for each in (name, name, name, other, name):
                world.publish(each, "log")
            log = world.logs[name]
            log.trimmed = max(log.trimmed, len(log.events) - 2)
        elif step == "create":
            if len(names) < 6:
                world.create()
        elif step == "drain":
            world.client.drain()
        elif step in ("deliver", "interrupt", "cut", "answer", "settle"):
            getattr(world, step)(*args)


def check_in_the_end(world: World) -> None:
    for name in world.logs:
        world.publish(name, "log")  # anything that was missed would show now
    for _ in range(100):
        world.settle()
    world.client.read(1 << 30)
    assert not any(place.partial for place in world.client.places.values()), "what is told counts in the end"
    told = {name: n - 1 for name, n in world.client.next.items()}
    for name, log in world.logs.items():
        if not log.gone:
            assert told.get(name) == len(log.events) or (log.done and name not in told), f"{name}: {told}"
    for name in world.client.running:
        ended = world.logs[name].done or world.logs[name].gone
        assert not ended, f"{name} shows for ever"
    assert not world.bundle.merge.waiting


@settings(max_examples=1000)
@given(STEPS, st.integers(1, 6), st.integers(3, 60), st.integers(0, 4))
def test_each_event_is_told_once_in_order_or_its_loss_is(steps: Steps, ring: int, room: int, at_first: int) -> None:
    world = World(ring, room)
    for _ in range(at_first):
        world.create()
    for _ in range(3 * at_first):  # those are live by then
        world.settle()
    play(world, steps)
    check_in_the_end(world)


MEANWHILE = st.lists(
    st.one_of(
        st.just(("create",)),
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("publish"), st.integers(0, 5), st.sampled_from(["log", "end", "end"])),
    ),
    max_size=8,
)


@settings(max_examples=150)
@given(st.integers(1, 6), STEPS, MEANWHILE, MEANWHILE, st.floats(0, 1))
def test_wherever_it_is_cut_each_end_is_told_and_nothing_twice_that_the_cursor_knew(
    at_first: int, steps: Steps, meanwhile: Steps, later: Steps, again: float
) -> None:
    """The first connection breaks at every possible frame, the second one anywhere."""

    def first_connection() -> World:
        world = World(ring=4, room=1_000)
        for _ in range(at_first):
            world.create()
        world.settle()
        world.cut(0)  # it begins where there are some
        play(world, [step for step in steps[:30] if step[0] != "cut"])
        return world

    for boundary in range(len(first_connection().client.frames) + 1):
        world = first_connection()
        world.leave(boundary)
        play(world, meanwhile)
        world.connect()
        world.answer()
        world.answer()
        for lane in range(LANES):
            world.deliver(lane, 2)
        world.leave(round(again * len(world.client.frames)))
        play(world, later)
        world.connect()
        check_in_the_end(world)


def test_a_replica_that_is_behind_the_one_before_repeats_nothing() -> None:
    world = World(ring=5, room=1_000)
    world.create()
    for _ in range(3):
        world.publish("0", "log")
    ahead = {
        0: LanePosition(world.position),
        1: LanePosition(b"1000-0"),
        2: LanePosition(b"1000-0"),
    }  # it has not received the first one yet
    world.client.cursor = cursor.write(ahead).decode()
    world.client.next["0"] = 5
    world.connect()
    world.answer()
    world.answer()
    world.settle()
    world.publish("0", "log")
    world.settle()
    world.client.read(1 << 30)
    assert world.client.next == {"0": 6}


def test_who_begins_again_at_a_replica_that_is_behind_hears_of_no_end_from_before_it_began() -> None:
    world = World(ring=5, room=1_000)
    for _ in range(4):
        world.create()
    world.deliver(0, 4)
    world.publish("3", "end")  # this replica has not received it yet
    began = {lane: LanePosition(world.position, partial=True) for lane in range(LANES)}
    world.client.cursor = cursor.write(began).decode()
    world.connect()
    world.answer()
    world.answer()
    world.settle()
    world.client.read(1 << 30)
    world.connect()
    world.answer()
    world.answer()
    world.settle()
    world.client.read(1 << 30)
    assert set(world.client.next) == {"0", "1", "2"}


def test_one_that_is_made_anew_before_the_deleted_one_had_its_place_takes_that() -> None:
    world = World(ring=5, room=1_000)
    world.create()
    world.deliver(0, 1)
    world.bundle.appeared(IndexedOperation("0", TERMS, False, b"2000-0", b"2000-0"), 0)
    (_, deleted, *_), (_, created_again, *_) = world.places
    assert not world.bundle.has(deleted)
    assert world.bundle.has(created_again)
    assert [frame.type for frame in created_again.pending] == [MISSING]
    world.bundle.appeared(IndexedOperation("0", TERMS, False, b"2000-0", b"2000-0"), 0)
    assert len(world.places) == 2, "who is heard of twice is followed once"


def ahead_of_the_feed() -> World:
    """Return a world whose client follows an operation, and has read an event that the feed has not delivered yet."""
    world = World(ring=5, room=1_000)
    world.create()
    world.publish("0", "log")
    world.connect()
    world.answer()
    world.answer()
    return world


def test_one_that_is_made_anew_is_followed_though_the_deleted_ones_member_has_read_of_it() -> None:
    world = ahead_of_the_feed()
    deleted = world.bundle.merge.lane(0).members["0"]
    assert [frame.position for frame in deleted.pending] == [b"1003-0"], "it waits for the feed"
    world.bundle.appeared(IndexedOperation("0", TERMS, False, b"1002-3", b"1002-3"), 0)  # after that of its deletion
    assert not world.bundle.has(deleted)
    _, created_again, *_ = world.places[-1]
    assert [frame.type for frame in created_again.pending] == [MISSING], "it tells its own snapshot after that"


def test_one_that_is_made_anew_is_told_whole_though_its_predecessors_frames_are_sent_before_it_begins() -> None:
    world = ahead_of_the_feed()
    world.bundle.appeared(IndexedOperation("0", TERMS, False, b"1005-0", b"1005-0"), 0)
    world.answer()  # its subscription is made
    world.deliver(0, 100)
    told = [frame.type for frame in world.client.frames]
    assert told[-2:] == [SNAPSHOT, MISSING], "those of its predecessor"
    world.answer()  # it begins
    world.publish("0", "log")
    world.deliver(0, 100)
    assert [frame.n for frame in world.client.frames[len(told) :] if frame.n] == [1, 2, 3]


def test_one_that_was_found_before_the_feed_told_of_the_deletion_is_followed() -> None:
    world = World(ring=5, room=1_000)
    world.create()
    log = world.logs["0"]
    log.channel = channel = Channel("0", log, RingLimits(5, 1_000_000))  # not read yet
    world.connect()
    world.answer()
    member = world.bundle.merge.lane(0).members["0"]
    channel.gone(b"900-0")
    assert not member.closed
    channel.gone(b"9000-0")
    assert member.closed


def test_a_deletion_that_two_learn_of_is_told_once() -> None:
    world = World(ring=5, room=1_000)
    world.create()
    world.deliver(0, 1)
    ((_, member, *_),) = world.places
    world.answer()
    world.logs["0"].channel.gone()
    member.fail("gone")  # because it can't be started any more
    assert [frame.type for frame in member.pending] == [MISSING]


def test_a_cursor_from_before_what_was_stored_in_place_of_lost_history_has_all_of_its_lane_told_again() -> None:
    world = World(ring=5, room=1_000)
    for _ in range(4):
        world.create()
    for _ in range(4):
        world.settle()
    world.publish("3", "log")
    told = world.logs["3"].events[-1].position
    world.deliver(0, 1)
    rewritten = world.logs["0"]  # as if Redis was restored and the worker continued
    ms = order(told)[0] - 1
    rewritten.events[:] = [Event(b"0", b"%d-%d" % (ms, n), n, b"log", b"{}") for n in (1, 2)]
    world.client.frames.clear()
    rewritten.channel.reload()
    for _ in range(3):
        world.answer()
    world.bundle.flush()
    assert cursor.parse(world.bundle.merge.cursor().decode(), LANES)[0] == LanePosition(told), "all is told"
    frames = world.client.frames
    assert [(frame.type, frame.n) for frame in frames if frame.n or frame.type == SNAPSHOT] == [
        (SNAPSHOT, 0),
        (b"log", 1),
        (b"log", 2),
    ]
    assert frames[0].wire.startswith(b"id: ")
    place = cursor.parse(frames[0].wire[4:-1].decode(), LANES)[0]
    assert (place.partial, place.lost, order(place.position) < (ms, 1)) == (True, True, True), "it has none of these"
