"""Events are due when they were, divided by the speed; in their order, and with their bytes."""

import itertools
from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.replay.player import Player
from progress_broker.replay.recording import Choice, Recorded
from progress_broker.replay.timeline import Timeline
from progress_broker.transfer.format import ExportedEvent

T0 = 1_795_959_000_000


class Clock:
    """A clock that only sleeps move, and what is sent to its sink."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now, self.late_s = 50.0, late_s
        self.sent: list[tuple[float, Recorded]] = []

    def read(self) -> float:
        return self.now

    async def sleep(self, time_s: float) -> None:
        self.now += time_s

    async def send(self, events: Sequence[Recorded]) -> None:
        self.sent += [(round(self.now - 50.0, 6), event) for event in events]
        self.now += self.late_s


def recorded(*times_ms: int) -> list[Recorded]:
    return [
        Recorded("a", ExportedEvent(n, b"%d-%d" % (T0 + ms, n), b"log", b'{"n": %d.0}' % n))
        for n, ms in enumerate(times_ms, 1)
    ]


async def played(events: Sequence[Recorded], timeline: Timeline, late_s: float = 0.0) -> tuple[Clock, Player]:
    clock = Clock(late_s)
    player = Player(clock, timeline, clock=clock.read, sleep=clock.sleep)
    await player.play(events)
    return clock, player


async def test_an_hour_at_ten_times_the_speed() -> None:
    events = recorded(*sorted({(n * n * 7919) % 3_600_000 for n in range(5_000)}))
    clock, player = await played(events, Timeline(speed=10))
    first = events[0].event.position
    for at_s, event in clock.sent:
        assert at_s == pytest.approx((int(event.event.position[:13]) - int(first[:13])) / 10_000, abs=1e-6)
    assert [event for _, event in clock.sent] == events
    assert player.lateness.percentile_ms(99) == 0
    assert (player.sent, player.position) == (len(events), events[-1].event.position)


async def test_what_is_late_once_does_not_make_the_rest_late() -> None:
    clock, player = await played(recorded(0, 1000, 1100, 1200, 60_000), Timeline(), late_s=0.5)
    assert [at_s for at_s, _ in clock.sent] == [0, 1, 1.5, 1.5, 60]
    assert player.lateness.percentile_ms(99) == 400
    assert player.lateness.percentile_ms(50) == 0


async def test_long_pauses_are_cut() -> None:
    clock, _ = await played(recorded(0, 1000, 100_000, 101_000), Timeline(speed=2, idle_limit_s=2))
    assert [at_s for at_s, _ in clock.sent] == [0, 0.5, 1.5, 2]


async def test_without_pauses_all_come_at_once_in_their_order() -> None:
    events = recorded(*range(0, 500_000, 1000))
    clock, _ = await played(events, Timeline(speed=inf))
    assert [event for _, event in clock.sent] == events
    assert {at_s for at_s, _ in clock.sent} == {0.0}


@given(st.lists(st.integers(0, 100_000), min_size=1).map(sorted), st.floats(0.1, 100), st.floats(0.01, 1000))
async def test_the_order_and_the_bounds_hold_for_any_times(times: list[int], speed: float, limit_s: float) -> None:
    clock, _ = await played(recorded(*times), Timeline(speed, limit_s))
    at = [at_s for at_s, _ in clock.sent]
    assert at == sorted(at)
    assert at[0] == 0
    assert at[-1] <= (times[-1] - times[0]) / 1000 / speed + 1e-3
    assert all(later - before <= limit_s / speed + 1e-3 for before, later in itertools.pairwise(at))


def test_a_choice_takes_times_types_and_what_follows_a_position() -> None:
    events = [one.event for one in recorded(0, 1000, 2000)]
    events.append(ExportedEvent(4, b"%d-0" % (T0 + 3000), b"end", b"{}"))

    def ns(choice: Choice) -> list[int]:
        return [event.n for event in events if choice.has(event)]

    assert ns(Choice()) == [1, 2, 3, 4]
    assert ns(Choice(since_ms=T0 + 1000, until_ms=T0 + 3000)) == [2, 3]
    assert ns(Choice(after=f"{T0 + 1000}-2")) == [3, 4]
    assert ns(Choice(types=frozenset({"progress"}))) == [4]


def test_frames_are_those_of_streams() -> None:
    [one] = recorded(0)
    assert one.frame.envelope == b'{"operation":"a","n":1,"type":"log","time":%d,"data":{"n": 1.0}}' % T0
