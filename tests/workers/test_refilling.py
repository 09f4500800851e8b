"""Redis forgets what it had stored, as in a failover: it is sent again in order, once, or its loss is told."""

from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from progress_broker.errors import BrokerError, Gap, Gone
from progress_broker.model.entry import NewEvent
from progress_broker.model.publish import Publish, Published
from progress_workers.core.outgoing.sent import KEPT_S, MAX_BYTES, KeptBatches, Sent
from progress_workers.core.progress.clock import Clock
from progress_workers.core.reporter import UNCONFIRMED_S, Reporter
from progress_workers.transport.answers import apply_answer
from tests.workers.test_reporter import END, SETTINGS

STORED = Published("1-1", 1)


class Forgetful:
    """A Redis that stores publishes by the rules of the script, and may forget the newest ones."""

    def __init__(self) -> None:
        self.publishes: list[list[NewEvent]] = []

    @property
    def events(self) -> list[NewEvent]:
        return [event for publish in self.publishes for event in publish]

    def publish(self, publish: Publish) -> Published | BrokerError:
        last = max((event.seq or 0 for event in self.events), default=0)
        fresh = [event for event in publish.entries if (event.seq or 0) > last]
        if publish.entries and not fresh:
            return STORED
        if publish.after is not None and last < publish.after[1]:
            gap = Gap("lost")
            gap.last = last
            return gap
        self.publishes += [fresh] if fresh else []
        return STORED

    def forget(self, number: int) -> None:
        del self.publishes[max(0, len(self.publishes) - number) :]


class Refilling(RuleBasedStateMachine):
    """One reporter and its Redis. Calls and their answers get lost, and Redis forgets at any time."""

    @initialize(joins=st.booleans())
    def begin(self, joins: bool) -> None:
        self.now, self.advanced, self.redis = 100.0, 0, Forgetful()
        clock = Clock(lambda: self.now, lambda: 1.7e9 + self.now)
        self.reporter = Reporter("op", SETTINGS, clock=clock, lease_s=15, joins=joins)
        self.reporter.outbox.sent = Sent(KeptBatches())  # times of other tests are by other clocks
        self.heartbeat: Publish | None = None
        self.joins = joins

    @rule(number=st.integers(1, 1000))
    def count(self, number: int) -> None:
        self.reporter.progress.gauge.advance(number)
        self.advanced += number

    @rule(number=st.sampled_from([1, 2, 300]))
    def log(self, number: int) -> None:
        for _ in range(number):
            self.reporter.log("line")

    @rule(seconds=st.sampled_from([0.1, 1.0, KEPT_S + 1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(arrives=st.booleans(), answered=st.booleans())
    def send(self, arrives: bool = True, answered: bool = True) -> None:
        publish = self.reporter.question() or self.reporter.batch(self.now)
        if publish is None or not arrives:
            return
        answer = self.redis.publish(publish)
        if answered:
            apply_answer(self.reporter, answer, self.reporter.acknowledged)

    @rule()
    def begin_heartbeat(self) -> None:
        """What it says may be old when it arrives."""
        self.heartbeat = self.reporter.heartbeat(self.now)

    @precondition(lambda self: self.heartbeat is not None)
    @rule()
    def send_heartbeat(self) -> None:
        assert self.heartbeat is not None
        if isinstance(self.redis.publish(self.heartbeat), Gap):
            self.reporter.ask_stored()
        self.heartbeat = None

    @rule(number=st.integers(1, 4))
    def forget(self, number: int) -> None:
        self.redis.forget(number)

    @invariant()
    def all_is_stored_once_in_order_or_told(self) -> None:
        before = 0
        for event in self.redis.events:
            assert event.seq == before + lost(event) or event.seq == before + 1, "nothing is missing, and nothing twice"
            before = event.seq

    def teardown(self) -> None:
        if not hasattr(self, "reporter"):
            return
        self.begin_heartbeat()
        self.send_heartbeat()
        mark = self.reporter.mark()
        for _ in range(100):
            self.send()
            self.now += 0.1
        self.all_is_stored_once_in_order_or_told()
        assert self.reporter.reached(mark)
        assert self.reporter.lost is None
        assert self.redis.events[-1:] == [] or self.redis.events[-1].seq == self.reporter.outbox.stored
        told = sum(map(lost, self.redis.events))
        assert self.reporter.tell_loss() or not told
        if self.joins and not told:
            assert sum(event.count[0] for event in self.redis.events if event.count) == self.advanced
        self.reporter.discard()


def lost(event: NewEvent) -> int:
    """Return how many events a line says to be lost."""
    said = orjson.loads(event.data)
    return int(said["dropped"]) if event.type == "log" and "when Redis failed over" in said["message"] else 0


TestRefilling = Refilling.TestCase
TestRefilling.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class Bench:
    """A reporter that sends to a forgetful Redis without any delay."""

    def __init__(self, **options: Any) -> None:
        self.now, self.redis = 100.0, Forgetful()
        self.reporter = Reporter("op", SETTINGS, clock=Clock(lambda: self.now, lambda: self.now), **options)
        self.reporter.outbox.sent = Sent(KeptBatches())

    def send(self) -> Publish | None:
        publish = self.reporter.question() or self.reporter.batch(self.now)
        if publish is not None:
            apply_answer(self.reporter, self.redis.publish(publish), self.reporter.acknowledged)
        return publish

    def drain(self) -> None:
        for _ in range(100):
            self.now += 0.2
            if self.send() is None:
                return
        raise AssertionError("it never has nothing to say")

    def messages(self) -> list[str]:
        return [orjson.loads(event.data)["message"] for event in self.redis.events]


def test_what_is_lost_is_sent_again_before_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for number in range(5):
        bench.reporter.log(f"line {number}")
        bench.drain()
    bench.redis.forget(3)
    bench.reporter.log("line 5")
    bench.drain()
    assert bench.messages() == [f"line {number}" for number in range(6)]
    assert "Redis lost events of operation op that it had stored, as in a failover: 3 are sent again, 0 are gone" in (
        caplog.text
    )
    assert not bench.reporter.tell_loss()


def test_what_is_too_old_to_be_sent_again_is_said_to_be_lost() -> None:
    bench = Bench()
    for number in range(5):
        bench.reporter.log(f"line {number}")
        bench.drain()
        bench.now += KEPT_S / 3
    bench.redis.forget(4)
    bench.reporter.log("line 5")
    bench.drain()
    assert bench.messages() == [
        "line 0",
        "1 event was lost when Redis failed over",
        *(f"line {n}" for n in range(2, 6)),
    ]
    assert bench.reporter.tell_loss()
    assert not bench.reporter.tell_loss(), "it is said once"
    bench.redis.forget(7)
    bench.now += KEPT_S + 1
    bench.reporter.heartbeat(bench.now)
    bench.reporter.log("line 6")
    bench.drain()
    assert bench.messages() == ["6 events were lost when Redis failed over", "line 6"]


def test_a_mark_is_not_reached_before_what_a_heartbeat_missed_is_stored_again() -> None:
    bench = Bench(lease_s=15)
    bench.reporter.log("line")
    bench.drain()
    bench.redis.forget(1)
    assert isinstance(bench.redis.publish(bench.reporter.heartbeat(bench.now)), Gap)
    bench.reporter.ask_stored()
    mark = bench.reporter.mark()
    assert bench.send() == Publish("op", (), 1, after=(bench.reporter.outbox.producer, 1))
    assert not bench.reporter.reached(mark)
    bench.drain()
    assert bench.reporter.reached(mark)
    assert bench.messages() == ["line"]


def test_an_end_follows_what_is_sent_again() -> None:
    bench = Bench()
    bench.reporter.log("line")
    bench.drain()
    bench.redis.forget(1)
    bench.reporter.end(END)
    bench.drain()
    assert [event.type for event in bench.redis.events] == ["log", "end"]
    assert bench.reporter.done


def test_what_a_server_leaves_out_is_not_sent_again_for_ever() -> None:
    """A server whose limit is lower may leave out an event. Then its seq is never stored."""
    bench = Bench()
    bench.reporter.log("too large")
    sent = 0
    while (publish := bench.reporter.batch(bench.now)) is not None:
        fitting = [event for event in publish.entries if b"too large" not in event.data]
        apply_answer(
            bench.reporter, bench.redis.publish(publish._replace(entries=fitting)), bench.reporter.acknowledged
        )
        bench.now += 1
        sent += 1
        assert sent < 20
        if sent == 1:
            bench.reporter.log("another")
    assert bench.messages() == ["1 event was lost when Redis failed over", "another"]


def batch(first: int, number: int, size: int = 1000) -> list[NewEvent]:
    return [NewEvent("log", b"x" * size, "", "p", seq) for seq in range(first, first + number)]


def test_what_is_kept_is_bounded_for_an_operation_and_for_a_process() -> None:
    kept = KeptBatches(max_bytes=3 * MAX_BYTES)
    many = [Sent(kept) for _ in range(5)]
    for at, first in enumerate(range(1, 5001, 100)):
        for sent in many:
            sent.keep(batch(first, 100), at / 10)
    assert 2.5 * MAX_BYTES < kept.size <= 3 * MAX_BYTES
    lost = [sent.take_lost(0, "p") for sent in many]
    assert kept.size == 0
    for refill in lost:
        assert refill.gone > 4000
        again = [event.seq for piece in refill.batches for event in piece]
        assert again == list(range(refill.gone, 5001)), "a line in place of the last one that is gone, and the rest"
        assert all(sum(len(event.data) for event in piece) <= 256 << 10 for piece in refill.batches)
    one = Sent(KeptBatches())
    for first in range(1, 5001, 100):
        one.keep(batch(first, 100), 0.0)
    assert 4_800_000 - MAX_BYTES < 1000 * one.take_lost(0, "p").gone < 5_200_000 - MAX_BYTES


def test_what_is_kept_is_let_go_with_time_and_with_its_operation() -> None:
    kept = KeptBatches()
    first, second = Sent(kept), Sent(kept)
    first.keep(batch(1, 10), 0.0)
    second.keep(batch(1, 10), 1.0)
    second.keep(batch(11, 10), KEPT_S)
    first.drop_old(KEPT_S + 0.5)
    assert first.take_lost(0, "p").gone == 10
    second.clear()
    assert kept.size == 0
    second.drop_old(3 * KEPT_S)
    assert second.take_lost(5, "p").gone == 15


def test_an_end_that_no_replica_has_is_sent_again_for_some_time(caplog: pytest.LogCaptureFixture) -> None:
    bench, unconfirmed = Bench(), STORED._replace(confirmed=False)
    bench.reporter.log("line")
    bench.reporter.end(END)
    mark = bench.reporter.mark()

    def send() -> None:
        publish = bench.reporter.batch(bench.now)
        assert publish is not None
        assert publish.ends
        assert bench.redis.publish(publish) == STORED
        apply_answer(bench.reporter, unconfirmed, bench.reporter.acknowledged)

    send()
    assert bench.reporter.reached(mark), "the block that it ends is not held up"
    assert not bench.reporter.done
    assert bench.reporter.unconfirmed
    late, first = bench.reporter.mark(), bench.now
    assert not bench.reporter.reached(late)
    while not bench.reporter.done:
        assert bench.now < bench.reporter.due_at() < bench.now + 1
        bench.now = bench.reporter.due_at()
        assert bench.reporter.reached(late) is (bench.now >= first + 1), "nor the end of the process, for long"
        send()
    assert UNCONFIRMED_S <= bench.now - first < UNCONFIRMED_S + 1
    assert bench.reporter.unconfirmed
    assert [event.type for event in bench.redis.events] == ["log", "end"]


def test_the_end_of_the_process_waits_for_a_server_that_is_away_since_it_has_an_end_that_no_replica_has() -> None:
    bench = Bench()
    bench.reporter.end(END)
    publish = bench.reporter.batch(bench.now)
    assert publish is not None
    bench.redis.publish(publish)
    apply_answer(bench.reporter, STORED._replace(confirmed=False), bench.reporter.acknowledged)
    mark = bench.reporter.mark()
    bench.now += UNCONFIRMED_S / 2
    assert not bench.reporter.reached(mark)
    apply_answer(bench.reporter, STORED._replace(confirmed=False), bench.reporter.acknowledged)
    assert bench.reporter.reached(mark)


@pytest.mark.parametrize("deleted", [False, True])
def test_an_end_that_was_lost_before_a_replica_had_it_is_stored_again(deleted: bool) -> None:
    bench = Bench()
    bench.reporter.log("line")
    bench.drain()
    bench.reporter.end(END)
    publish = bench.reporter.batch(bench.now)
    assert publish is not None
    assert bench.redis.publish(publish) == STORED
    apply_answer(bench.reporter, STORED._replace(confirmed=False), bench.reporter.acknowledged)
    if deleted:  # by somebody else, who has seen the end
        apply_answer(bench.reporter, Gone("deleted"), bench.reporter.acknowledged)
        assert bench.reporter.lost is None
    else:
        bench.redis.forget(2)
        bench.now = bench.reporter.due_at()
        bench.send()
        assert bench.reporter.due_at() < bench.now, "it does not wait"
        bench.drain()
        assert [event.type for event in bench.redis.events] == ["log", "end"]
    assert bench.reporter.done
    assert not bench.reporter.unconfirmed
