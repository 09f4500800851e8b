import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import progress_workers
from progress_workers import AsyncOperation, Cancelled, Fenced, NotFound, Operation, OperationEnded, StorageUnavailable
from progress_workers.testing import Logged, RecordedOperation, recording
from tests.workers.harness import Broker


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No Redis can be found, so a report outside a recording fails."""
    monkeypatch.delenv("PROGRESS_REDIS_URL", raising=False)
    monkeypatch.setenv("PROGRESS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def import_rows(rows: list[str], **options: Any) -> None:
    with Operation.start("import", **options) as op:
        for row in op.track(rows):
            op.raise_if_cancelled()
            op.log(f"imported {row}")
        op.succeed({"rows": len(rows)})


async def import_later(rows: list[str], **options: Any) -> None:
    async with AsyncOperation.start("import", **options) as op:
        for row in op.track(rows):
            await asyncio.sleep(0)
            op.log(f"imported {row}")
        op.succeed({"rows": len(rows)})


def _later(rows: list[str], **options: Any) -> None:
    asyncio.run(import_later(rows, **options))


both = pytest.mark.parametrize("work", [import_rows, _later], ids=["sync", "async"])
Work = Callable[..., None]


def third(operation: RecordedOperation) -> bool:
    return bool(operation.progress["current"] == 2)


@both
def test_what_is_reported_is_recorded(work: Work) -> None:
    with recording() as recorded:
        work(["ada", "grace"], id="i-1", title="Import", owner="alice", tags=["eu"])
    assert recorded.outcome is not None
    assert recorded.outcome.status == "succeeded"
    assert recorded.outcome.result == {"rows": 2}
    assert recorded.logs == [Logged("imported ada"), Logged("imported grace")]
    assert [progress["current"] for progress in recorded.progresses] == [1, 2]
    assert recorded.progress["percent"] == 100
    assert [event.type for event in recorded.events][-1] == "end"
    shown = recorded.operation.snapshot
    assert (shown.id, shown.kind, shown.title, shown.owner, shown.tags) == ("i-1", "import", "Import", "alice", ["eu"])


def test_a_failure_is_recorded_and_raised() -> None:
    with recording() as recorded, pytest.raises(ZeroDivisionError), Operation.start("sum"):
        raise ZeroDivisionError("by zero")
    assert recorded.outcome is not None
    assert recorded.outcome.status == "failed"
    assert recorded.outcome.error is not None
    assert (recorded.outcome.error.type, recorded.outcome.error.message) == ("ZeroDivisionError", "by zero")


@both
@pytest.mark.parametrize("when", [None, third], ids=["as it begins", "once it is there"])
def test_a_cancel_stops_the_work(work: Work, when: Any) -> None:
    with recording() as recorded:
        recorded.cancel("enough", by="bob", when=when)
        with pytest.raises(Cancelled) as caught:
            work(["ada", "grace", "edsger", "barbara", "alan"])
    assert (caught.value.reason, caught.value.by) == ("enough", "bob")
    assert recorded.outcome is not None
    assert recorded.outcome.status == "cancelled"
    assert recorded.progress.get("current", 0) == (2 if when else 0)
    assert recorded.operation.snapshot.cancel_requested


@both
def test_another_attempt_fences_the_work(work: Work) -> None:
    with recording() as recorded:
        recorded.fence(when=third)
        with pytest.raises(Fenced):
            work(["ada", "grace", "edsger", "barbara", "alan"])
    assert recorded.outcome is None
    assert recorded.operation.snapshot.attempt == 2


def test_a_cancel_in_the_block_is_heard_at_once() -> None:
    with recording() as recorded, Operation.start("import") as op:
        heard: list[Exception] = []
        op.on_cancel(heard.append)
        assert not op.cancelled
        recorded.cancel("now")
        assert op.cancelled
        assert [str(error) for error in heard] == [f"operation {op.id} was cancelled: now"]
        with pytest.raises(Cancelled, match="now"):
            op.raise_if_cancelled()


def test_a_cancel_reaches_the_children() -> None:
    with recording() as recorded, Operation.start("all") as op:
        child = op.child("part", weight=2)
        recorded.cancel("all of it")
        with pytest.raises(Cancelled, match="all of it"):
            child.raise_if_cancelled()
    (part,) = recorded.of_kind("part")
    assert part.snapshot.parent == recorded.operation.id
    assert list(recorded.operations) == [recorded.operation.id, part.id]


def test_signals_reach_the_work() -> None:
    with recording() as recorded, Operation.start("import") as op:
        recorded.signal("pause", {"until": "noon"}, by="bob")
        assert [tuple(signal) for signal in op.signals(timeout=0)] == [("pause", {"until": "noon"}, "bob")]


def test_the_rules_are_those_of_the_broker() -> None:
    with recording():
        with pytest.raises(NotFound):
            Operation.attach("nowhere")
        id = Operation.create("import", id="i-1")
        with Operation.attach(id, new_attempt=True) as op:
            assert op.attempt == 1
        with pytest.raises(OperationEnded):
            Operation.attach(id)
        with pytest.raises(progress_workers.OperationExists):
            Operation.start("another", id="i-1")


def test_code_that_reports_to_the_current_operation_is_recorded() -> None:
    def library() -> None:
        for _ in progress_workers.track([1, 2, 3]):
            progress_workers.current().log("one more", "debug")

    with recording() as recorded, Operation.start("test"):
        library()
    assert recorded.progress["current"] == 3
    assert recorded.logs == [Logged("one more", "debug")] * 3


def test_threads_with_operations_of_their_own_are_recorded_without_a_loss(request: pytest.FixtureRequest) -> None:
    def work() -> None:
        with Operation.start("import") as op:
            op.log("in a thread")

    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)  # so that threads interrupt one another often
    for _ in range(50):
        with recording() as recorded:
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [len(operation.logs) for operation in recorded.of_kind("import")] == [1] * 4


def test_many_threads_are_recorded_without_a_loss() -> None:
    def work(op: Operation) -> None:
        for number in range(50):
            op.advance()
            op.log(str(number))

    with recording() as recorded, Operation.start("test") as op:
        threads = [threading.Thread(target=work, args=(op,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert recorded.progress["current"] == 200
    assert sorted(line.message for line in recorded.logs) == sorted([str(number) for number in range(50)] * 4)


def test_a_long_loop_may_be_recorded_as_it_would_be_sent() -> None:
    with recording(every=False) as recorded, Operation.start("test") as op:
        for _ in op.track(range(10_000)):
            pass
    assert recorded.progress["current"] == 10_000
    assert len(recorded.progresses) < 100


def test_nothing_runs_in_the_background_and_nothing_is_left_of_it() -> None:
    before = set(threading.enumerate())
    with recording() as recorded:
        import_rows(["ada"])
        recorded.cancel("too late")
    assert set(threading.enumerate()) == before
    with pytest.raises(StorageUnavailable, match="progress-broker serve"):
        Operation.start("import", required=True)


def test_recordings_stand_for_themselves() -> None:
    with recording() as outer:
        Operation.start("outer")
        with recording() as inner:
            Operation.start("inner")
        Operation.start("outer")
    assert [len(some.operations) for some in (outer, inner)] == [2, 1]
    assert inner.operation.snapshot.kind == "inner"


def test_without_an_operation_it_says_so() -> None:
    with recording() as recorded:
        pass
    with pytest.raises(LookupError, match=r"Operation\.start"):
        _ = recorded.progress


def test_what_is_recorded_is_what_redis_would_hold(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    def work(**options: Any) -> None:
        with Operation.start("import", id="same", total=3, unit="rows", worker="w", **options) as op:
            op.log("one\ntwo", "warning")
            with op.stage("parse", weight=2) as stage:
                for _ in stage.track("abc"):
                    op.advance()
            op.publish("thumbnail", {"url": "x"})
            op.update(message="nearly", metrics={"a": 1})
            op.succeed([1, 2])

    def told(events: list[Any]) -> list[Any]:
        last = [event for event in events if event.type == "progress"][-1]
        for moment in ("rate", "eta_ms"):
            last.data.pop(moment)
        for moment in ("started_at", "duration_ms"):
            last.data["stages"][0].pop(moment)
        return [(event.type, event.data) for event in events if event.type != "progress"] + [last.data]

    with recording() as recorded:
        work()
    work(settings=broker.settings)
    assert told(recorded.events) == told(broker.events("same"))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_plan_may_ask_for_what_is_not_there_yet() -> None:
    def good(operation: Any) -> bool:
        return bool(operation.progress["metrics"]["loss"] < 0.5)

    with recording() as recorded, Operation.start("train") as op:
        recorded.cancel("good enough", when=good)
        for loss in (0.9, 0.7, 0.4, 0.2):
            op.update(metrics={"loss": loss})
            if op.cancelled:
                break
    assert recorded.progress["metrics"] == {"loss": 0.4}


def _wrong_name(operation: Any) -> bool:
    return bool(operation.progress["curent"] == 1)


@pytest.mark.parametrize(
    ("when", "why"), [(_wrong_name, r"KeyError\('curent'\)"), (lambda operation: False, "never became true")]
)
def test_a_plan_that_never_came_due_is_told(when: Any, why: str) -> None:
    recorded = recording()
    recorded.cancel(when=when)
    with pytest.raises(AssertionError, match=why), recorded:
        import_rows(["ada"])


def test_what_the_work_raised_comes_before_a_plan_that_never_came_due() -> None:
    recorded = recording()
    recorded.cancel(when=lambda operation: False)
    with pytest.raises(ZeroDivisionError), recorded:
        raise ZeroDivisionError
