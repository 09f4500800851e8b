"""Several processes count on one operation: what they count adds up, exactly, and no count falls."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from progress_broker.model.entry import NewEvent
from progress_broker.operations.commands import publish_call, read_answer
from progress_workers import Operation
from progress_workers.transport.over_redis.connection import Connection
from tests.workers.harness import KEYS, Broker, assert_whole, finished, python, worker

JOINS = """
    import sys
    from progress_workers import Operation
    with Operation.attach("op", end_on_exit=False, interval_s=0) as op:
        print("ready", flush=True)
        for line in sys.stdin:
            {work}
            op.flush()
            print("done", flush=True)
"""


class Counter:
    """A process that has joined the operation. It works once for each line that it gets."""

    def __init__(self, url: str, work: str) -> None:
        self.process = worker(url, JOINS.format(work=work))
        self._said("ready")

    def step(self) -> None:
        self.begin()
        self._said("done")

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _said(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n"


@contextmanager
def counters(url: str, number: int, work: str = "op.advance()") -> Iterator[list[Counter]]:
    with ExitStack() as stack:
        started = []
        for _ in range(number):
            started.append(Counter(url, work))
            stack.enter_context(started[-1].process)
            stack.callback(started[-1].process.kill)
        yield started
        for each in started:
            if each.process.returncode is None:
                finished(each.process)


def told(broker: Broker, operation: str = "op") -> list[dict[str, Any]]:
    progresses = broker.data(operation, "progress")
    for before, after in pairwise(progresses):
        assert after["current"] >= before["current"]
        assert (after["percent"] or 0) >= (before["percent"] or 0)
    for each in progresses:
        if each["total"]:
            assert each["percent"] == pytest.approx(100 * each["current"] / each["total"], abs=0.01)
    assert_whole(broker.events(operation))
    assert broker.show(operation).progress == progresses[-1]
    return progresses


def test_what_processes_count_adds_up(address: str, broker: Broker) -> None:
    with Operation.start("work", id="op", total=40, settings=broker.settings, interval_s=0) as op:
        op.advance(2)
        op.flush()
        with counters(address, 3) as started:
            for _ in range(4):
                for each in started:
                    each.begin()
                op.advance()
                op.update(message="counting")
            for each in started:
                for _ in range(4):
                    each._said("done")
            op.flush()
            assert told(broker)[-1]["current"] == 2 + 4 + 3 * 4
            for each in started:
                each.step()
        op.flush()
        assert told(broker)[-1]["current"] == 21
        op.advance(19)
    last = told(broker)[-1]
    assert (last["current"], last["total"], last["percent"]) == (40, 40, 100)
    assert broker.show("op").status == "succeeded"


def test_a_process_that_dies_keeps_what_it_has_done(address: str, broker: Broker) -> None:
    with Operation.start("work", id="op", total=10, settings=broker.settings) as op:
        with counters(address, 2) as (dies, lives):
            dies.step()
            lives.step()
            dies.process.send_signal(signal.SIGKILL)
            dies.process.wait()
            lives.step()
        with counters(address, 1) as (another,):
            another.step()
        op.update(message="over")
    assert (told(broker)[-1]["current"], told(broker)[-1]["message"]) == (4, "over")


def test_a_process_that_only_counts_leaves_all_else_as_it_is(address: str, broker: Broker) -> None:
    with Operation.start("work", id="op", unit="rows", settings=broker.settings, interval_s=0) as op:
        op.update(message="before", metrics={"a": 1})
        op.flush()
        with counters(address, 1) as (one,), counters(address, 1, "op.update(message='from another')") as (two,):
            op.update(message="now", metrics={"b": [2]}, percent=30)
            op.flush()
            one.step()
            last = told(broker)[-1]
            assert (last["current"], last["message"], last["unit"], last["percent"]) == (1, "now", "rows", 30)
            assert last["metrics"] == {"a": 1, "b": [2]}
            two.step()
            one.step()
            assert told(broker)[-1]["message"] == "from another"
            assert told(broker)[-1]["current"] == 2


def test_the_parts_that_processes_loop_over_are_the_total(address: str, broker: Broker) -> None:
    Operation.create("work", id="op", settings=broker.settings)
    with counters(address, 2, "list(op.track(range(5)))") as started:
        for each in started:
            each.step()
        last = broker.data("op", "progress")[-1]
        assert (last["current"], last["total"], last["percent"]) == (10, 10, 100)
        started[0].step()
    last = broker.data("op", "progress")[-1]
    assert (last["current"], last["total"], last["percent"]) == (15, 15, 100)


def test_a_total_that_the_operation_was_given_is_that_of_all(address: str, broker: Broker) -> None:
    with Operation.start("work", id="op", total=10, settings=broker.settings) as op:
        with counters(address, 2, "list(op.track(range(5)))") as started:
            for each in started:
                each.step()
        op.flush()
    last = told(broker)[-1]
    assert (last["current"], last["total"], last["percent"]) == (10, 10, 100)


def test_forked_processes_add_up(address: str, broker: Broker) -> None:
    process = python(
        address,
        """
        import multiprocessing
        from progress_workers import Operation, current, track

        def work(items):
            for _ in track(items):
                pass
            return current().flush()

        with Operation.start("work", id="op", total=60, interval_s=0) as op:
            op.advance(10)
            with multiprocessing.get_context("fork").Pool(3) as pool:
                assert all(pool.map(work, [range(10)] * 5, chunksize=1))
        """,
    )
    finished(process)
    last = told(broker)[-1]
    assert (last["current"], last["total"], last["percent"]) == (60, 60, 100)


@pytest.mark.over_redis
def test_a_count_that_is_sent_twice_counts_once(broker: Broker) -> None:
    Operation.create("work", id="op", settings=broker.settings)
    connection = Connection(broker.store_settings)
    data = b'{"current":0,"total":null,"percent":null,"message":"m","stages":[],"x":{}}'
    entry = NewEvent("progress", data, producer="a", seq=1, count=(2.5, 10))
    calls = [publish_call("op", KEYS.operation("op"), [entry], attempt=1) for _ in range(2)]
    first, again = (connection.run(call) for call in calls)
    assert first == again
    assert read_answer(first).events == 3  # pending, running, and this one
    assert broker.data("op", "progress") == [
        {"current": 2.5, "total": 10, "percent": 25, "message": "m", "stages": [], "x": {}}
    ]


@pytest.mark.over_redis
@pytest.mark.parametrize(
    ("type", "data", "count"),
    [
        ("log", b'{"message":"m"}', (1, 0)),
        ("progress", b'{"message":"m"}', (1, 0)),
        ("progress", b'{"current":[],"total":null,"percent":null}', (1, 0)),
        ("progress", b'{"current":0,"total":null,"percent":null}', (float("nan"), 0)),
        ("progress", b'{"current":0,"total":null,"percent":null}', (1, float("inf"))),
    ],
)
def test_a_count_of_something_else_is_rejected(
    broker: Broker, type: str, data: bytes, count: tuple[float, float]
) -> None:
    Operation.create("work", id="op", settings=broker.settings)
    call = publish_call("op", KEYS.operation("op"), [NewEvent(type, data, count=count)], attempt=1)
    assert Connection(broker.store_settings).run(call)[0] == b"invalid"
    assert [event.type for event in broker.events("op")] == ["status"]


def test_a_new_attempt_counts_from_the_beginning(address: str, broker: Broker) -> None:
    Operation.start("work", id="op", total=10, settings=broker.settings).retry_in(60)
    with counters(address, 1) as (one,):
        one.step()
    with Operation.attach("op", new_attempt=True, settings=broker.settings) as op:
        op.update(current=1, total=4)
        with counters(address, 1) as (one,):
            one.step()
    last = broker.data("op", "progress")[-1]
    assert (last["current"], last["total"], last["percent"]) == (2, 4, 50)


def test_the_process_that_ends_an_operation_can_be_another_one(address: str, broker: Broker) -> None:
    first = Operation.start("work", id="op", total=10, settings=broker.settings)
    first.advance(3)
    first.flush()
    with counters(address, 1) as (one,):
        one.step()
    with Operation.attach("op", settings=broker.settings) as op:
        op.advance(2)
    first.fail("too late")
    assert told(broker)[-1]["current"] == 6


def stages_of(progress: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {
        each["name"]: (each["status"], each["current"], each["total"], each["percent"]) for each in progress["stages"]
    }


def test_what_processes_say_is_joined_by_its_name(storage: str, broker: Broker) -> None:
    with Operation.start("work", id="op", unit="rows", settings=broker.settings, interval_s=0) as op:
        op.update(message="from the first", metrics={"a": 1, "shared": 1}, region="eu")
        op.flush()
        says = "op.update(metrics={'b': 2.50, 'shared': 2}, zone='\\\"{]')"
        with counters(storage, 1, says) as (other,):
            other.step()
            op.advance()
            op.flush()  # from its answer on, this process knows of the other
            other.step()
            op.advance()
            op.flush()
            last = told(broker)[-1]
            assert last["metrics"] == {"a": 1, "shared": 2, "b": 2.5}
            assert (last["message"], last["unit"], last["region"], last["zone"]) == (
                "from the first",
                "rows",
                "eu",
                '"{]',
            )
            op.update(metrics={"shared": 3}, message="again")
            op.flush()
            assert told(broker)[-1]["metrics"] == {"a": 1, "shared": 3, "b": 2.5}


def test_what_processes_count_in_a_stage_adds_up(storage: str, broker: Broker) -> None:
    with Operation.start("work", id="op", settings=broker.settings, interval_s=0) as op:
        op.stage("read", total=20, weight=3)
        op.stage("write", total=10)
        op.flush()
        work = "op.stage('read').__enter__(); op.stage('read').advance(2)"
        with counters(storage, 2, work) as (one, other):
            one.step()
            other.step()
            with op.stage("read") as stage:
                stage.advance(3)
                op.flush()
                other.step()
                last = broker.data("op", "progress")[-1]
                assert stages_of(last) == {"read": ("running", 9, 20, 45), "write": ("pending", 0, 10, 0)}
                assert last["percent"] == pytest.approx(45 * 3 / 4, abs=0.01)
        with counters(storage, 1, "list(op.stage('check').track(range(5)))") as (third,):
            third.step()
            op.stage("write").advance(5)
            op.flush()
    last = broker.data("op", "progress")[-1]
    assert {name: each[1:] for name, each in stages_of(last).items()} == {
        "read": (9, 20, 45),
        "write": (5, 10, 50),
        "check": (5, 5, 100),
    }


def test_forked_processes_add_up_in_a_stage(storage: str, broker: Broker) -> None:
    process = python(
        storage,
        """
        import multiprocessing
        from progress_workers import Operation, current

        def work(items):
            for _ in current().stage("resize").track(items):
                pass
            current().update(metrics={items[0]: len(items)})
            return current().flush()

        with Operation.start("work", id="op", interval_s=0) as op:
            with op.stage("resize", total=60) as stage:
                stage.advance(10)
                with multiprocessing.get_context("fork").Pool(3) as pool:
                    assert all(pool.map(work, [range(n, n + 10) for n in range(5)], chunksize=1))
        """,
    )
    finished(process)
    last = broker.data("op", "progress")[-1]
    assert stages_of(last) == {"resize": ("succeeded", 60, 60, 100)}
    assert last["metrics"] == {str(n): 10 for n in range(5)}


def test_what_processes_add_to_a_metric_adds_up(storage: str, broker: Broker) -> None:
    with Operation.start("work", id="op", settings=broker.settings, interval_s=0) as op:
        op.increment("bad", 2)
        op.flush()
        with counters(storage, 2, "op.increment('bad', 1.5); op.increment('odd')") as (one, other):
            one.step()
            other.step()
            op.increment("bad")
            op.flush()
            other.step()
            op.advance()
    assert broker.data("op", "progress")[-1]["metrics"] == {"bad": 7.5, "odd": 3}
