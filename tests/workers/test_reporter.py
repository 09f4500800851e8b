"""The reporter's rules, tested without Redis, threads or time."""

import logging
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import inf
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.errors import Fenced
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Cancel
from progress_broker.model.payloads import Progress
from progress_broker.model.publish import Counts, Publish, Published
from progress_broker.settings import Settings
from progress_workers.core.lease import ASKED_AFTER_S
from progress_workers.core.outgoing.backlog import MAX_CHARS, MAX_LINES, Line
from progress_workers.core.outgoing.outbox import BATCH_LINES
from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.progress import MAX_STAGES
from progress_workers.core.progress.rate import Rate
from progress_workers.core.reporter import Reporter
from progress_workers.errors import CancelInfo, Cancelled

SETTINGS = Settings(_env_file=None)
END = NewEvent("end", b'{"status":"succeeded","result":null,"error":null}', "succeeded")
TAKEN = Published("1-1", 1)


class Bench:
    """A reporter, a clock that tests set, and a Redis that stores each (producer, seq) once, as the script does."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.woken = 0
        self.stored: list[NewEvent] = []
        self._last: dict[str, int] = {}
        clock = Clock(lambda: self.now, lambda: 1.7e9 + self.now)
        self.reporter = Reporter("op", SETTINGS, clock=clock, wake=self._woken, **options)

    def _woken(self, _: Reporter) -> None:
        self.woken += 1

    def send(self, *, arrives: bool = True, answered: bool = True) -> list[NewEvent] | None:
        batch = self.reporter.take(self.now)
        if batch is None or not arrives:
            return batch
        for entry in batch:
            assert entry.seq is not None
            if entry.seq > self._last.get(entry.producer, 0):
                self._last[entry.producer] = entry.seq
                self.stored.append(entry)
        if answered:
            self.reporter.acknowledged(TAKEN)
        return batch

    def drain(self) -> None:
        for _ in range(100):
            self.now += 1
            if self.send() is None:
                return
        raise AssertionError("it never has nothing to say")

    def types(self) -> list[str]:
        return [entry.type for entry in self.stored]

    def data(self, type: str) -> list[Any]:
        return [orjson.loads(entry.data) for entry in self.stored if entry.type == type]


def test_the_first_progress_is_due_at_once_and_the_next_after_the_interval() -> None:
    bench = Bench()
    bench.reporter.progress.gauge.advance(1)
    assert bench.reporter.due_at() <= bench.now
    bench.send()
    bench.reporter.progress.gauge.advance(1)
    assert bench.reporter.due_at() == pytest.approx(bench.now + 0.1)
    assert bench.send() is None
    bench.now += 0.11
    bench.send()
    assert [progress["current"] for progress in bench.data("progress")] == [1, 2]


def test_counting_wakes_the_sender_once_for_each_batch() -> None:
    bench = Bench()
    for _ in range(1000):
        bench.reporter.progress.gauge.advance(1)
    assert bench.woken == 1
    bench.send()
    bench.reporter.progress.gauge.advance(1)
    assert bench.woken == 2


def test_a_known_total_is_told_before_anything_is_done() -> None:
    bench = Bench(total=10, unit="rows", publish_running=True)
    bench.send()
    assert bench.types() == ["status", "progress"]
    assert bench.data("progress")[0] | {"current": 0, "total": 10, "percent": 0.0} == bench.data("progress")[0]


def test_a_batch_that_was_not_acknowledged_is_sent_again_as_it_was() -> None:
    bench = Bench()
    bench.reporter.progress.gauge.advance(1)
    first = bench.send(arrives=False)
    bench.reporter.progress.gauge.advance(5)
    bench.reporter.log("later")
    assert bench.send(answered=False) == first
    assert bench.send() == first
    bench.drain()
    assert [progress["current"] for progress in bench.data("progress")] == [1, 6]


def test_logs_are_bounded_and_what_was_dropped_is_said_before_the_rest() -> None:
    bench = Bench()
    for number in range(MAX_LINES + 5):
        bench.reporter.log(f"line {number}")
    bench.drain()
    lines = bench.data("log")
    assert lines[0]["dropped"] == 5
    assert lines[0]["level"] == "warning"
    assert [line["message"] for line in lines[1:]] == [f"line {number}" for number in range(5, MAX_LINES + 5)]


def test_logs_are_bounded_in_characters_too() -> None:
    bench = Bench()
    for _ in range(3 * MAX_CHARS // 4096):
        bench.reporter.log("x" * 100_000)
    bench.drain()
    lines = bench.data("log")
    assert 0 < lines[0]["dropped"] == 3 * MAX_CHARS // 4096 + 1 - len(lines)
    assert sum(len(line["message"]) for line in lines) < MAX_CHARS
    assert all(len(line["message"]) <= 4096 for line in lines)


def test_many_logs_do_not_wait_for_the_interval() -> None:
    bench = Bench()
    bench.reporter.log("first")
    bench.send()
    for number in range(BATCH_LINES):
        bench.reporter.log(f"line {number}")
    assert bench.reporter.due_at() < bench.now


def test_the_end_comes_last_and_nothing_after_it() -> None:
    bench = Bench()
    for number in range(3 * BATCH_LINES):
        bench.reporter.log(f"line {number}")
    bench.reporter.progress.gauge.advance(7)
    assert bench.reporter.end(END)
    assert not bench.reporter.end(END)
    bench.reporter.log("too late")
    while not bench.reporter.done:
        assert bench.send() is not None  # without waiting for the interval
    bench.reporter.progress.gauge.advance(1)
    bench.drain()
    assert bench.types().count("log") == 3 * BATCH_LINES
    assert bench.types()[-1] == "end"
    assert bench.data("progress")[-1]["current"] == 7


def test_a_lease_is_kept_by_beats_that_tell_nothing() -> None:
    bench = Bench(lease_s=15)
    assert bench.reporter.heartbeat_due_at() == bench.now + 5
    bench.now += 3
    bench.reporter.progress.gauge.advance(3)
    bench.send()
    assert bench.reporter.heartbeat_due_at() == bench.now + 5  # a batch replaces a heartbeat
    bench.now += 5
    follows = (bench.stored[-1].producer, bench.stored[-1].seq)
    assert bench.reporter.heartbeat(bench.now) == Publish("op", (), 1, after=follows)
    assert bench.reporter.heartbeat_due_at() == bench.now + 5
    bench.reporter.release()
    assert bench.reporter.heartbeat_due_at() == inf


def test_without_a_lease_beats_are_rare_and_only_keep_the_operation_from_expiring() -> None:
    bench = Bench()
    rare = bench.now + SETTINGS.idle_timeout_s / 4
    assert bench.reporter.heartbeat_due_at() == rare
    bench.reporter.lease.check_now()  # a check for fencing is still possible
    assert bench.reporter.heartbeat_due_at() <= bench.now
    assert bench.reporter.heartbeat(bench.now).as_observer  # this does not extend the lease
    assert bench.reporter.heartbeat_due_at() == rare


def test_an_operation_that_ended_is_not_beaten_for() -> None:
    bench = Bench(lease_s=15)
    bench.reporter.end(END)
    assert bench.reporter.heartbeat_due_at() == inf


def test_work_that_stands_still_is_told_again_ever_more_rarely_with_a_falling_rate() -> None:
    bench = Bench(total=1000, interval_s=0.1)
    for _ in range(100):
        bench.now += 0.1
        bench.reporter.progress.gauge.advance(1)
        bench.send()
    told = len(bench.data("progress"))
    gaps = []
    for _ in range(4):
        due = bench.reporter.due_at()
        gaps.append(due - bench.now)
        bench.now = due
        bench.send()
    assert gaps == pytest.approx([5, 10, 20, 40])
    fading = bench.data("progress")[told - 1 :]
    assert [progress["current"] for progress in fading] == [100] * 5
    rates = [progress["rate"] for progress in fading]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(10, rel=0.01)
    assert rates[-1] < 2
    etas = [progress["eta_ms"] for progress in fading]
    assert etas == sorted(etas)


def test_an_attempt_that_gives_up_says_so_last_and_holds_the_lease_for_the_next() -> None:
    bench = Bench(lease_s=15)
    bench.reporter.retry_in(60, Line("attempt 1 failed", "warning", None))
    bench.reporter.end(END)
    bench.reporter.log("unheard")
    batch = bench.reporter.batch(bench.now)
    assert batch is not None
    assert batch.lease_ms == 75000
    bench.drain()
    assert bench.types() == ["log"]
    assert bench.reporter.done


def test_events_of_one_s_own_keep_their_place_among_the_lines() -> None:
    bench = Bench()
    bench.reporter.log("before")
    bench.reporter.publish(NewEvent("thumbnail", b'{"url":"/1.png"}'))
    bench.reporter.log("after")
    bench.drain()
    assert bench.types() == ["log", "thumbnail", "log"]


@pytest.mark.parametrize("stop", [CancelInfo("enough", "bob"), Fenced("another attempt")])
def test_who_wants_to_hear_of_a_stop_hears_once_and_at_once_if_it_is_past(stop: CancelInfo | Fenced) -> None:
    bench = Bench()
    heard: list[Exception] = []
    bench.reporter.cancellation.on_stop(heard.append)
    bench.reporter.cancellation.on_stop(lambda _: 1 / 0)  # an error in one callback must not affect the others
    forget = bench.reporter.cancellation.on_stop(heard.append)
    forget()
    for _ in range(2):
        if isinstance(stop, CancelInfo):
            bench.reporter.cancellation.request(stop)
        else:
            bench.reporter.lose(stop)
    assert len(heard) == 1
    bench.reporter.cancellation.on_stop(heard.append)
    assert [type(error) for error in heard] == [Cancelled if isinstance(stop, CancelInfo) else Fenced] * 2


def test_a_lost_operation_says_nothing_more_and_tells_why() -> None:
    bench = Bench()
    bench.reporter.progress.gauge.advance(1)
    bench.reporter.lose(Fenced("another attempt has taken over"))
    bench.reporter.log("unheard")
    bench.reporter.end(END)
    assert bench.reporter.done
    assert bench.send() is None
    assert isinstance(bench.reporter.cancellation.error(), Fenced)


def test_a_cancel_is_heard_from_a_publish_s_answer_with_its_reason() -> None:
    bench = Bench()
    bench.reporter.progress.gauge.advance(1)
    bench.send(answered=False)
    asked = Cancel(reason="enough", by="bob")
    bench.reporter.acknowledged(Published("1-0", 2, asked))
    error = bench.reporter.cancellation.error()
    assert isinstance(error, Cancelled)
    assert (error.reason, error.by) == ("enough", "bob")


def test_a_mark_is_reached_when_all_before_it_is_acknowledged() -> None:
    bench = Bench()
    bench.reporter.progress.gauge.advance(1)
    bench.send(answered=False)
    bench.reporter.log("after the batch was taken")
    mark = bench.reporter.mark()
    bench.reporter.acknowledged(TAKEN)
    assert not bench.reporter.reached(mark)
    bench.send()
    assert bench.reporter.reached(mark)


def test_a_mark_with_nothing_to_say_is_reached_by_looking() -> None:
    bench = Bench()
    mark = bench.reporter.mark()
    assert bench.send() is None
    assert bench.reporter.reached(mark)


def test_a_forked_child_is_another_producer_and_leaves_the_rest_to_its_parent() -> None:
    bench = Bench(lease_s=15)
    bench.reporter.progress.gauge.advance(1)
    bench.send(answered=False)
    bench.reporter.log("the parent's")
    bench.reporter.after_fork()
    assert bench.reporter.due_at() == inf
    bench.reporter.progress.gauge.advance(1)
    bench.drain()
    assert bench.data("log") == []
    assert [progress["current"] for progress in bench.data("progress")] == [1, 2]
    assert len({entry.producer for entry in bench.stored}) == 2


def test_what_does_not_fit_is_left_out_and_said_once() -> None:
    bench = Bench()
    bench.reporter.progress.update(5, 10, None, "fine", {"big": "x" * 20_000}, {"odd": {1: object()}})
    bench.reporter.progress.update(None, None, None, None, {"big": "x" * 20_000}, {})
    bench.send()
    bench.now += 1
    bench.reporter.progress.gauge.advance(1)
    bench.send()
    assert bench.types() == ["log", "progress", "progress"]
    assert "the metric 'big' was ignored" in bench.data("log")[0]["message"]
    told = bench.data("progress")[1]
    assert (told["current"], told["message"]) == (6, "fine")
    assert "metrics" not in told


@pytest.mark.parametrize("odd", ["\ud800", "x" * 100_000, "\x00" * 5000], ids=["surrogate", "long", "control"])
def test_odd_text_goes_through_somehow(odd: str) -> None:
    bench = Bench()
    bench.reporter.progress.update(1, None, None, odd, None, {})
    bench.reporter.log(odd, stage=odd)
    bench.reporter.end(END)
    bench.drain()
    assert bench.types() == ["log", "log", "progress", "end"] or bench.types() == ["log", "progress", "end"]
    assert all(len(entry.data) <= 65_536 for entry in bench.stored)


def test_bad_words_are_ignored_and_the_log_says_so_once() -> None:
    bench = Bench()
    for _ in range(2):
        bench.reporter.log("x", level="loud")
        bench.reporter.stage("s", weight=0)
        bench.reporter.progress.update("7", None, None, None, None, {})  # type: ignore[arg-type]
        bench.reporter.progress.gauge.advance("7")  # type: ignore[arg-type]
    bench.drain()
    assert [(line["level"], line["message"]) for line in bench.data("log")] == [
        (
            "warning",
            "the log level 'loud' is unknown, so it is shown as info; known: critical, debug, error, info, warning",
        ),
        ("info", "x"),
        ("warning", "the weight 0 was ignored; expected a finite number greater than 0"),
        ("warning", "the value '7' of current was ignored; expected a finite number, 0 or greater"),
        ("warning", "the value '7' of advance was ignored; expected a finite number, 0 or greater"),
        ("info", "x"),
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("WARN", "warning"),
        ("Error", "error"),
        (30, "warning"),
        (35, "warning"),
        (logging.CRITICAL, "critical"),
        (5, "debug"),
    ],
)
def test_levels_may_be_those_of_logging(given: Any, told: str) -> None:
    bench = Bench()
    bench.reporter.log("x", given)
    bench.drain()
    assert bench.data("log") == [{"level": told, "message": "x"}]


def test_stages_add_up_by_weight() -> None:
    bench = Bench()
    extract, load = bench.reporter.stage("extract", weight=3, total=10), bench.reporter.stage("load")
    with extract:
        for _ in extract.track(range(5)):
            pass
    bench.drain()
    assert bench.data("progress")[-1]["percent"] == 37.5
    extract.advance(5)
    with load:
        pass
    bench.drain()
    last = bench.data("progress")[-1]
    assert last["percent"] == 100.0
    assert [(stage["name"], stage["status"], stage["percent"]) for stage in last["stages"]] == [
        ("extract", "succeeded", 100.0),
        ("load", "succeeded", 100.0),
    ]
    Progress.model_validate(last)


def test_a_stage_that_counts_to_no_total_is_complete_when_it_has_succeeded() -> None:
    bench = Bench()
    read, write = bench.reporter.stage("read"), bench.reporter.stage("write")
    with read:
        for _ in read.track(row for row in "abc"):
            pass
        bench.drain()
        assert bench.data("progress")[-1]["percent"] == 0.0
    bench.drain()
    assert bench.data("progress")[-1]["percent"] == 50.0
    write.advance(3)
    with pytest.raises(KeyError), write:
        raise KeyError("x")
    bench.drain()
    last = bench.data("progress")[-1]
    assert last["percent"] == 50.0
    assert [(stage["current"], stage["percent"]) for stage in last["stages"]] == [(3, 100.0), (3, None)]


def test_a_stage_ends_as_the_worst_of_those_inside() -> None:
    bench = Bench()
    stage = bench.reporter.stage("work")
    with stage:
        with pytest.raises(KeyError), stage:
            raise KeyError("x")
        assert stage.status == "running"
    assert stage.status == "failed"
    with pytest.raises(Cancelled), stage:
        raise Cancelled("op")
    assert stage.status == "skipped"
    with stage:
        pass
    assert stage.status == "succeeded"


def test_stages_are_bounded() -> None:
    bench = Bench()
    for number in range(MAX_STAGES + 10):
        with bench.reporter.stage(f"stage {number}"):
            pass
    bench.drain()
    assert len(bench.data("progress")[-1]["stages"]) == MAX_STAGES


def test_a_line_belongs_to_the_stage_that_runs_if_only_one_does() -> None:
    bench = Bench()
    one, two = bench.reporter.stage("one"), bench.reporter.stage("two")
    with one:
        bench.reporter.log("in one")
        with two:
            bench.reporter.log("in which?")
            two.log("in two")
    bench.reporter.log("in none")
    bench.drain()
    assert [line.get("stage") for line in bench.data("log")] == ["one", None, "two", None]


def test_rate_and_remaining_time_follow_the_count() -> None:
    bench = Bench(total=100)
    bench.send()
    assert bench.data("progress")[0]["rate"] is None
    for _ in range(20):
        bench.now += 0.5
        bench.reporter.progress.gauge.advance(2)
        bench.send()
    last = bench.data("progress")[-1]
    assert last["rate"] == pytest.approx(4)
    assert last["eta_ms"] == pytest.approx(15_000, rel=0.01)


@pytest.mark.parametrize("counts", ["advance", "track", "current", "percent"])
def test_time_before_the_first_item_is_not_work(counts: str) -> None:
    """Ten units a second after half a minute of set-up; the four that are left take 0.4 s."""
    bench = Bench(total=None if counts == "percent" else 100)
    progress, items = bench.reporter.progress, iter(range(100))
    bench.send()
    bench.now += 30
    loop = progress.gauge.track(items)
    for done in range(1, 97):
        bench.now += 0.1
        if counts == "advance":
            progress.gauge.advance()
        elif counts == "track":
            next(loop)
        elif counts == "current":
            progress.update(done, None, None, None, None, {})
        else:
            progress.update(None, None, done, None, None, {})
        bench.send()
    told = bench.data("progress")[-1]
    assert told["eta_ms"] == pytest.approx(400, abs=110)
    assert told["rate"] == (None if counts == "percent" else pytest.approx(10, rel=0.02))


def test_what_was_there_before_is_no_speed() -> None:
    """Such as the part of a file that was downloaded yesterday."""
    bench = Bench(total=1000)
    bench.reporter.progress.update(900, None, None, None, None, {})
    bench.send()
    for _ in range(10):
        bench.now += 1
        bench.reporter.progress.gauge.advance(1)
        bench.send()
    told = bench.data("progress")[-1]
    assert (told["rate"], told["eta_ms"]) == (pytest.approx(1), pytest.approx(90_000))


def test_rate_and_remaining_time_are_those_of_all_processes_that_count() -> None:
    """One counts 1 unit a second, the others 2, and 40 of 100 are left."""
    bench = Bench(total=100)
    for second in range(1, 21):
        bench.now += 1
        bench.reporter.progress.gauge.advance()
        bench.send(answered=False)
        bench.reporter.acknowledged(TAKEN._replace(counts=Counts(second, 100, 2 * second, 0)))
    bench.reporter.progress.update(None, None, None, "hm", None, {})
    bench.now += 0.5
    bench.send()
    told = bench.data("progress")[-1]
    assert (told["current"], told["rate"]) == (20, pytest.approx(3, rel=0.05))
    assert told["eta_ms"] == pytest.approx(40_000 / 3, rel=0.1)


def test_a_process_that_joins_reports_what_it_adds() -> None:
    bench = Bench()
    bench.reporter.progress.resume({"current": 5, "total": 10, "percent": 50.0}, joins=True)
    for by in (2, 1):
        bench.reporter.progress.gauge.advance(by)
        bench.now += 1
        bench.send()
    bench.reporter.after_fork()
    bench.reporter.progress.gauge.advance(4)
    bench.drain()
    assert [entry.count for entry in bench.stored] == [(2, 0), (1, 0), (4, 0)]


def test_slow_items_have_a_rate_from_the_first_one_on() -> None:
    bench = Bench()
    bench.now += 30
    gauge = bench.reporter.progress.gauge
    items = gauge.track([1, 2, 3])
    gauge.set(total=3)
    next(items)
    bench.now += 60
    next(items)
    bench.send()
    told = bench.data("progress")[-1]
    assert (told["rate"], told["eta_ms"]) == (pytest.approx(1 / 60, rel=0.05), pytest.approx(120_000))


def test_more_to_do_lowers_the_percentage() -> None:
    bench = Bench()
    progress = bench.reporter.progress

    def loop(items: list[int], first: int | None = None) -> None:
        progress.gauge.expect(items)
        each = progress.gauge.track(items)
        for _ in items[:first] if first else [*items, None]:
            next(each, None)
        bench.now += 1
        bench.send()

    loop([1] * 5)
    loop([1] * 5, first=3)
    told = [(one["current"], one["total"], one["percent"]) for one in bench.data("progress")]
    assert told == [(5, 5, 100), (7, 10, 70)]


def test_what_is_done_already_is_part_of_the_total_of_a_loop() -> None:
    bench = Bench()
    gauge = bench.reporter.progress.gauge
    for _ in gauge.track(iter(range(5))):
        pass
    gauge.expect([1, 2, 3])
    assert (gauge.current, gauge.total) == (5, 8)


def test_another_stage_lowers_the_percentage() -> None:
    bench = Bench()
    with bench.reporter.stage("one"):
        pass
    bench.send()
    bench.now += 1
    bench.reporter.stage("two")
    bench.send()
    assert [one["percent"] for one in bench.data("progress")] == [100, 50]


def test_a_worker_that_starts_again_keeps_the_percentage_while_it_counts_anew() -> None:
    bench = Bench()
    bench.reporter.progress.resume({"percent": 60.0, "current": 6, "total": 10}, percent_only=True)
    for total in (5, 10):
        bench.reporter.progress.update(1, total, None, None, None, {})
        bench.now += 1
        bench.send()
    assert [(one["current"], one["percent"]) for one in bench.data("progress")] == [(1, 60), (1, 60)]


def test_a_percentage_can_be_told_where_nothing_can_be_counted() -> None:
    bench = Bench()
    for percent in (10, 55.555, 30, 1000):
        bench.reporter.progress.update(None, None, percent, None, None, {})
        bench.now += 1
        bench.send()
    assert [progress["percent"] for progress in bench.data("progress")] == [10, 55.55, 55.55, 100]


def test_progress_is_taken_up_where_another_process_left_it() -> None:
    first = Bench(total=10, unit="rows")
    first.reporter.progress.update(4, None, None, "half", {"m": 1}, {"workers": {"active": 2}})
    with first.reporter.stage("one"):
        pass
    first.send()
    second = Bench()
    second.reporter.progress.resume(first.data("progress")[-1])
    second.reporter.progress.gauge.advance(1)
    second.send()
    told = second.data("progress")[-1]
    before = first.data("progress")[-1]
    assert (told["current"], told["percent"]) == (5, 50.0)
    for name in ("total", "unit", "message", "metrics", "workers", "stages"):
        assert told[name] == before[name]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).flatmap(
        lambda odd: st.dictionaries(
            st.sampled_from(["current", "total", "unit", "percent", "message", "stages", "metrics", "x"]), st.just(odd)
        )
    )
)
def test_whatever_another_worker_wrote_can_be_taken_up(told: dict[str, Any]) -> None:
    bench = Bench()
    bench.reporter.progress.resume(told)
    bench.reporter.progress.gauge.advance(1)
    bench.drain()
    assert bench.types()[-1] == "progress"


def more_to_do(before: dict[str, Any], after: dict[str, Any]) -> bool:
    if after["total"] is not None:
        return before["total"] is not None and bool(after["total"] > before["total"])
    stages, stages_before = after.get("stages", []), before.get("stages", [])
    return len(stages) > len(stages_before) or any(
        (stage["total"] or 0) > (stage_before["total"] or 0)
        for stage, stage_before in zip(stages, stages_before, strict=True)
    )


NUMBERS = st.one_of(st.integers(-5, 200), st.floats(allow_nan=True, allow_infinity=True))
ACTIONS = st.one_of(
    st.tuples(st.just("advance"), st.integers(-3, 50)),
    st.tuples(st.just("update"), NUMBERS, st.none() | NUMBERS),
    st.tuples(st.just("log"), st.integers(1, 150)),
    st.tuples(st.just("stage"), st.sampled_from("abc"), st.none() | st.integers(0, 20), st.integers(0, 9)),
    st.tuples(st.just("tick"), st.floats(0, 10)),
    st.tuples(st.just("send"), st.sampled_from(["lost", "unanswered", "answered", "answered"])),
)


@given(st.lists(ACTIONS, max_size=40), st.sampled_from([None, 0, 100]))
def test_whatever_happens_everything_told_is_stored_once_and_in_order(actions: list[Any], total: int | None) -> None:
    bench = Bench(total=total, lease_s=15)
    said = 0
    for action, *values in actions:
        if action == "advance":
            bench.reporter.progress.gauge.advance(values[0])
        elif action == "update":
            bench.reporter.progress.update(values[0], values[1], None, None, None, {})
        elif action == "log":
            for _ in range(values[0]):
                bench.reporter.log(str(said))
                said += 1
        elif action == "stage":
            with bench.reporter.stage(values[0], total=values[1]) as stage:
                stage.advance(values[2])
        elif action == "tick":
            bench.now += values[0]
        else:
            bench.send(arrives=values[0] != "lost", answered=values[0] == "answered")
    final = bench.reporter.progress.gauge.current
    changed = bench.reporter.dirty_flag.dirty
    bench.reporter.end(END)
    bench.drain()

    assert [entry.seq for entry in bench.stored] == list(range(1, len(bench.stored) + 1))
    assert bench.types().count("end") == 1
    assert bench.types()[-1] == "end"
    progress = bench.data("progress")
    if changed or progress:
        uncounted = final == 0 and progress[-1]["total"] is None and "stages" in progress[-1]
        assert progress[-1]["current"] == (None if uncounted or abs(final) == inf else final)
    shown = [told for told in progress if told["percent"] is not None]
    assert all(0 <= told["percent"] <= 100 for told in shown)
    for before, after in pairwise(shown):
        assert after["percent"] >= before["percent"] or more_to_do(before, after)
    for told in progress:
        Progress.model_validate(told)
    lines = bench.data("log")
    kept = [int(line["message"]) for line in lines if line["message"].isdecimal()]
    assert kept == sorted(set(kept))
    assert len(kept) + sum(line.get("dropped", 0) for line in lines) == said


def test_odd_numbers_are_counted_and_what_cannot_be_told_does_not_hold_back_the_end() -> None:
    bench = Bench(total=10)
    bench.reporter.progress.gauge.set(current=0.5)
    bench.reporter.progress.gauge.advance(Decimal("1.5"))  # type: ignore[arg-type]
    bench.reporter.progress.gauge.skip(Fraction(1, 2))  # type: ignore[arg-type]
    bench.send()
    assert bench.data("progress")[-1]["current"] == 2.5
    bench.reporter.stage("odd").gauge = None  # type: ignore[assignment]
    bench.reporter.progress.gauge.advance()
    bench.reporter.log("still told")
    bench.reporter.end(END)
    bench.drain()
    assert bench.types()[-2:] == ["log", "end"]


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([(0.2, 1000), (10, 1001), (20, 1002), (30, 1003)], 0.1),  # a burst leaves the window
        ([(60, 1), (120, 2), (180, 3)], 1 / 60),  # slow items
        ([(0.1, 1)], None),  # too early for a rate
        ([(10, 100), (20, 200), (60, 200)], 100 / 40),  # no progress lowers the rate
        ([(10, 100), (11, 0), (12, 0), (13, 20)], 10),  # counting started again
    ],
)
def test_the_rate_is_that_of_the_last_seconds_or_of_the_last_items(
    samples: list[tuple[float, float]], told: float | None
) -> None:
    rate = Rate()
    found = [rate.sample(now, done) for now, done in samples][-1]
    assert found == (None if told is None else pytest.approx(told, rel=0.15))


def test_without_heartbeats_it_is_asked_once_whether_the_last_report_is_still_stored() -> None:
    bench = Bench(lease_s=None)
    woken: list[float] = []
    bench.reporter.lease.wake = lambda: woken.append(bench.now)
    for _ in range(3):
        bench.now += 1
        bench.reporter.log("line")
        bench.send()
    assert bench.reporter.heartbeat_due_at() == bench.now + ASKED_AFTER_S
    assert woken == [101.0], "the thread that sends heartbeats waits for the new time"
    bench.now += ASKED_AFTER_S
    assert bench.reporter.heartbeat(bench.now).as_observer
    assert bench.reporter.heartbeat_due_at() == bench.now + SETTINGS.idle_timeout_s / 4
