from progress_broker.history.losses import Lost
from progress_broker.live.channel import Channel
from progress_broker.live.history import RingLimits
from progress_broker.stream.batching import BOOKMARK_EVERY
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import Subscription
from tests.broker.harness import ALL, Outlet, Timers, event


class Reads:
    def __init__(self) -> None:
        self.loads = 0
        self.pages: list[bytes] = []
        self.snapshots = 0
        self.emptied = 0

    def load(self, channel: Channel) -> None:
        self.loads += 1

    def history_length(self, channel: Channel) -> None:
        channel.bookmark_every = BOOKMARK_EVERY

    def page(self, channel: Channel, position: bytes) -> None:
        self.pages.append(position)

    def snapshot(self, channel: Channel, lost: Lost | None) -> None:
        self.snapshots += 1

    def empty(self, channel: Channel) -> None:
        self.emptied += 1


def make(ring: int = 4, size: int = 1_000_000) -> tuple[Channel, Reads]:
    reads = Reads()
    return Channel("a", reads, RingLimits(ring, size)), reads


def watch(channel: Channel, n: int = 0) -> Outlet:
    subscription = Subscription(channel, ALL, Timers().policy())
    channel.add(subscription)
    subscription.begin(n, b"%d-0" % (1_000 + n))
    outlet = Outlet(subscription)
    subscription.attach(outlet)
    return outlet


def test_what_the_feed_brings_while_the_log_is_read_follows_it() -> None:
    channel, _ = make(ring=10)
    outlet = watch(channel)
    channel.accept([event(3)])
    channel.accept([event(4)])
    assert outlet.numbers == []
    channel.loaded_with([event(1), event(2), event(3)])
    assert outlet.numbers == [1, 2, 3, 4]


def test_a_deletion_closes_no_stream_that_is_known_to_follow_the_next_operation() -> None:
    channel, _ = make()
    of_the_next, of_the_deleted = watch(channel, 5), watch(channel, 1)
    channel.gone(b"1003-0")
    assert (of_the_next.closed, of_the_deleted.closed) == (False, True)


def test_what_the_feed_brought_of_an_earlier_operation_does_not_follow_the_log_of_a_new_one() -> None:
    channel, reads = make(ring=10)
    outlet = watch(channel)
    channel.accept([event(2)._replace(position=b"900-0")])
    channel.loaded_with([event(1)])
    channel.accept([event(2)])
    assert (outlet.numbers, reads.loads) == ([1, 2], 0)


def test_each_event_is_built_once_for_all() -> None:
    channel, _ = make()
    channel.loaded_with([])
    outlets = [watch(channel) for _ in range(3)]
    channel.accept([event(1)])
    assert outlets[0].frames[-1] is outlets[1].frames[-1] is outlets[2].frames[-1]


def test_repeats_are_ignored() -> None:
    channel, reads = make()
    channel.loaded_with([event(1), event(2)])
    outlet = watch(channel)
    channel.accept([event(1)])
    channel.accept([event(2)])
    assert (outlet.numbers, reads.loads) == ([1, 2], 0)


def test_a_hole_has_the_log_read_again() -> None:
    channel, reads = make()
    channel.loaded_with([event(1)])
    outlet = watch(channel, 1)
    channel.accept([event(3)])
    assert (reads.loads, channel.loaded) == (1, False)
    channel.accept([event(4)])
    channel.loaded_with([event(1), event(2), event(3)])
    assert outlet.numbers == [2, 3, 4]


def test_what_was_missed_while_reading_has_it_read_once_more() -> None:
    channel, reads = make()
    channel.loaded_with([event(1)])
    channel.reload()
    channel.reload()
    assert reads.loads == 1
    channel.loaded_with([event(1)])
    assert reads.loads == 2
    channel.loaded_with([event(1)])
    assert reads.loads == 2


def test_the_ring_is_bounded_in_number_and_in_bytes() -> None:
    channel, _ = make(ring=3)
    channel.loaded_with([event(n) for n in range(1, 6)])
    assert channel.after(1) is None
    assert [frame.n for frame in channel.after(2) or ()] == [3, 4, 5]
    assert channel.after(5) == ()
    small, _ = make(ring=1000, size=2_000)
    small.loaded_with([])
    for n in range(1, 50):
        small.accept([event(n, data=b'"' + b"x" * 500 + b'"')])
    assert [frame.n for frame in small.after(47) or ()] == [48, 49]
    assert small.after(40) is None
    small.accept([event(50, data=b'"' + b"x" * 5_000 + b'"')])
    assert [frame.n for frame in small.after(49) or ()] == [50]


def test_many_that_want_the_same_page_share_one_read() -> None:
    channel, reads = make(ring=1)
    channel.loaded_with([event(9)])
    outlets = [watch(channel, 2) for _ in range(5)] + [watch(channel, 4)]
    assert reads.pages == [b"1002-0", b"1004-0"]
    channel.page_read(b"1002-0", [event(n) for n in range(3, 9)], None)
    assert [outlet.numbers for outlet in outlets[:5]] == [[3, 4, 5, 6, 7, 8, 9]] * 5
    assert outlets[5].numbers == []


def test_a_log_that_lost_what_was_delivered_is_told() -> None:
    for tail in ([event(1)], [], [event(1), event(2)._replace(position=b"5-5"), event(3)]):
        channel, reads = make()
        channel.loaded_with([event(1), event(2)])
        outlet = watch(channel, 2)
        channel.reload()
        channel.loaded_with(tail)
        assert reads.snapshots == 1, tail
        assert outlet.numbers == []


def test_a_rewritten_log_is_noticed_by_its_next_event() -> None:
    channel, reads = make()
    channel.loaded_with([event(1), event(2)])
    channel.accept([event(2)._replace(position=b"5-5")])
    assert reads.loads == 1


def test_an_operation_that_is_gone_sends_all_away_but_those_who_await_it() -> None:
    channel, reads = make()
    channel.loaded_with([])
    outlets = [watch(channel), watch(channel)]
    waiting = next(iter(channel.subscriptions))
    waiting.wait()
    channel.gone()
    assert sorted(outlet.closed for outlet in outlets) == [False, True]
    assert waiting.mode is Mode.AWAITING
    waiting.close()
    assert (channel.subscriptions, reads.emptied) == (set(), 1)


def test_who_watches_one_that_was_made_anew_stays_when_its_deletion_is_told_late() -> None:
    channel, _ = make()
    channel.loaded_with([event(1), event(2)])
    outlet = watch(channel, n=2)
    channel.gone(b"1000-0")
    assert not outlet.closed
    channel.reload()
    channel.gone(b"1000-0")
    assert not outlet.closed
    channel.gone(b"1003-0")
    assert outlet.closed


def test_a_log_with_a_hole_is_whole_from_the_hole_on() -> None:
    channel, _ = make(ring=10)
    channel.loaded_with([event(1), event(2), event(7), event(8)])
    assert channel.after(1) is None
    assert [frame.n for frame in channel.after(6) or ()] == [7, 8]


def test_a_log_that_began_anew_is_noticed_though_its_numbers_are_older_than_the_ring() -> None:
    channel, reads = make(ring=2)
    channel.loaded_with([event(n) for n in range(8, 11)])
    outlet = watch(channel, 10)
    channel.accept([event(3)])
    assert reads.loads == 0, "a repeat"
    channel.accept([event(3)._replace(position=b"5000-0")])
    channel.loaded_with([event(1)._replace(position=b"4000-0"), event(2)._replace(position=b"4500-0")])
    assert (reads.loads, reads.snapshots, outlet.numbers) == (1, 1, [])


def test_a_log_that_goes_on_past_what_it_may_have_lost_is_not_taken_for_the_same() -> None:
    """The loaded tail does not overlap with the delivered events: only a page after them can show what is missing."""
    channel, reads = make(ring=4)
    channel.loaded_with([event(n) for n in range(1, 4)])
    outlet = watch(channel, 3)
    channel.reload()
    channel.loaded_with([event(n)._replace(position=b"%d-0" % (5_000 + n)) for n in range(4, 8)])
    assert (outlet.numbers, reads.pages) == ([], [b"1003-0"])


def test_what_the_feed_told_and_storage_lost_is_not_asked_for_again_and_again() -> None:
    channel, reads = make(ring=10)
    channel.loaded_with([event(1), event(2)])
    watch(channel, 2)
    channel.reload()
    channel.accept([event(4), event(5)])  # and then Redis loses both, and the third
    channel.loaded_with([event(1), event(2)])
    assert reads.loads == 2, "there was a hole"
    channel.loaded_with([event(1), event(2)])
    assert (reads.loads, channel.loaded) == (2, True)


def test_a_silent_channel_lets_go_of_what_there_is_no_room_for() -> None:
    room = RingLimits(100, 1_000_000)
    channel = Channel("a", Reads(), room)
    channel.loaded_with([event(n, data=b'"' + b"x" * 1000 + b'"') for n in range(1, 50)])
    assert 1000 < channel.typical_bytes() < 1200
    room.bytes = 5_000
    channel.trim()
    assert len(channel.after(45) or ()) == 4
    assert channel.after(40) is None
