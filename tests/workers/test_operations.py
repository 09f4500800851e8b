"""`Operation` and `AsyncOperation` with a real Redis: reports, and the end of the block, become the operation's log."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from progress_broker.model.operation import MAX_REASON_CHARS, Status
from progress_broker.model.payloads import Progress
from progress_workers import (
    AsyncOperation,
    Cancelled,
    Fenced,
    Gone,
    InvalidInput,
    NotFound,
    Operation,
    OperationEnded,
    OperationExists,
    Pool,
    PoolWorker,
    SetupError,
    StorageUnavailable,
)
from progress_workers.core.exceptions import MAX_TRACEBACK_CHARS
from progress_workers.errors import CancelInfo
from tests.servers import eventually, wait_until
from tests.workers.conftest import Run
from tests.workers.harness import KEYS, Broker, assert_whole, finished, python

FIRST_AND_LAST_S = 60.0
"""An interval so long that only the first and the last progress are sent, at any machine speed."""


def work(op: Any) -> None:
    for row in op.track(range(10)):
        with op.stage("parse", weight=1):
            if row == 5:
                op.log("half way", level="info")
        op.raise_if_cancelled()
    op.update(message="done", metrics={"rows": 10})
    op.succeed({"imported": 10})


def test_what_the_block_says_is_the_log(run: Run, broker: Broker) -> None:
    given = {"unit": "rows", "owner": "alice", "tags": ["eu"], "lease_s": 15, "title": "Import", "worker": "host:1"}
    run(work, "import", id="import-42", total=10, settings=broker.settings, interval_s=FIRST_AND_LAST_S, **given)
    events = broker.events("import-42")
    assert_whole(events)
    assert [event.type for event in events] == ["status", "status", "progress", "log", "progress", "end"]
    assert events[3].data == {"level": "info", "message": "half way", "stage": "parse"}
    last = events[4].data
    assert (last["current"], last["total"], last["percent"], last["message"]) == (10, 10, 100.0, "done")
    assert last["metrics"] == {"rows": 10}
    assert events[5].data == {"status": "succeeded", "result": {"imported": 10}, "error": None}
    shown = broker.show("import-42")
    assert (shown.status, shown.owner, shown.tags, shown.title) == (Status.SUCCEEDED, "alice", ["eu"], "Import")
    assert (shown.worker, shown.kind, shown.attempt) == ("host:1", "import", 1)


def test_progress_arrives_while_the_block_runs(run: Run, broker: Broker) -> None:
    def body(op: Any) -> None:
        op.advance(3)
        wait_until(lambda: [told["current"] for told in broker.data("live", "progress")] == [3], "the first is sent")
        op.advance(4)
        wait_until(lambda: broker.data("live", "progress")[-1]["current"] == 7, "the next is sent")

    run(body, "import", id="live", settings=broker.settings)


def test_a_block_left_normally_has_succeeded(run: Run, broker: Broker) -> None:
    run(lambda op: None, "import", id="quiet", settings=broker.settings)
    assert broker.data("quiet", "end") == [{"status": "succeeded", "result": None, "error": None}]


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("bad row 7"), "failed", {"type": "ValueError", "message": "bad row 7"}),
        (SystemExit(3), "failed", {"type": "SystemExit", "message": "it exited with status 3"}),
        (
            KeyboardInterrupt(),
            "cancelled",
            {"type": "cancelled", "message": "it was interrupted, for example by Ctrl-C"},
        ),
        (asyncio.CancelledError(), "cancelled", {"type": "cancelled", "message": "its task was cancelled"}),
        (asyncio.CancelledError("shutting down"), "cancelled", {"type": "cancelled", "message": "shutting down"}),
        (
            GeneratorExit(),
            "cancelled",
            {"type": "cancelled", "message": "its generator was closed before it finished"},
        ),
        (Cancelled("x", "enough"), "cancelled", {"type": "cancelled", "message": "enough"}),
        (
            BaseExceptionGroup("in tasks", [KeyError("a"), ExceptionGroup("more", [OSError("disk full")])]),
            "failed",
            {
                "type": "ExceptionGroup",
                "message": "in tasks (2 sub-exceptions): KeyError: 'a'; OSError: disk full",
            },
        ),
        (
            OddError(),
            "failed",
            {"type": "OddError", "message": "(the message of this error can't be shown: str() raised RuntimeError)"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_exception_ends_the_operation_and_is_raised_on(
    run: Run, broker: Broker, error: BaseException, status: str, told: dict[str, Any]
) -> None:
    def body(op: Any) -> None:
        op.advance()
        raise error

    with pytest.raises(type(error)):
        run(body, "import", id="broken", settings=broker.settings)
    events = broker.events("broken")
    assert_whole(events)
    assert events[-1].data == {"status": status, "result": None, "error": told}
    assert broker.data("broken", "progress")[-1]["current"] == 1


@pytest.mark.parametrize("ends", [("succeed", "fail"), ("fail", "succeed")])
def test_of_several_ends_the_first_counts(run: Run, broker: Broker, ends: tuple[str, str]) -> None:
    def body(op: Any) -> None:
        for end in ends:
            op.succeed(1) if end == "succeed" else op.fail("disk full")
        op.log("too late")

    run(body, "import", id="twice", settings=broker.settings)
    (end,) = broker.data("twice", "end")
    assert end["status"] == {"succeed": "succeeded", "fail": "failed"}[ends[0]]
    assert broker.logged("twice") == []


def test_a_result_that_cannot_be_stored_is_left_out_and_the_log_says_so(run: Run, broker: Broker) -> None:
    run(lambda op: op.succeed("x" * 70_000), "import", id="large", settings=broker.settings)
    assert broker.data("large", "end") == [{"status": "succeeded", "result": None, "error": None}]
    (said,) = broker.logged("large")
    assert said.startswith("the result was left out, because the value exceeds the limit of")


def test_a_cancel_is_heard_and_ends_the_operation_as_cancelled(run: Run, broker: Broker) -> None:
    heard: list[Cancelled] = []

    def body(op: Any) -> None:
        assert not op.cancelled
        broker.cancel("stop-me", "enough")
        wait_until(lambda: op.cancelled, "an idle worker hears of a cancel")  # without publishing anything meanwhile
        try:
            op.raise_if_cancelled()
        except Cancelled as error:
            heard.append(error)
            raise

    with pytest.raises(Cancelled):
        run(body, "import", id="stop-me", lease_s=None, settings=broker.settings)
    assert (heard[0].reason, heard[0].by) == ("enough", "bob")
    assert broker.data("stop-me", "end") == [
        {"status": "cancelled", "result": None, "error": {"type": "cancelled", "message": "enough"}}
    ]


def test_work_that_finishes_in_spite_of_a_cancel_has_succeeded(broker: Broker) -> None:
    with Operation.start("import", id="stubborn", settings=broker.settings) as op:
        broker.cancel("stubborn")
        wait_until(lambda: op.cancelled, "the cancel is heard")
    assert broker.data("stubborn", "end")[0]["status"] == "succeeded"


def test_an_operation_that_is_added_while_another_is_listened_to_is_heard_at_once(broker: Broker) -> None:
    with Operation.start("import", id="one", settings=broker.settings) as one:
        broker.cancel("one")
        wait_until(lambda: one.cancelled, "the reader is at work")
        with Operation.start("import", id="two", settings=broker.settings) as two:
            broker.cancel("two")
            wait_until(lambda: two.cancelled, "it is woken, not left to time out", deadline_s=1.5)


def test_a_cancel_before_the_worker_came_is_heard(broker: Broker) -> None:
    first = Operation.start("import", id="early", settings=broker.settings)
    first.flush()
    broker.cancel("early", "too late")
    for join in (
        Operation.start("import", id="early", settings=broker.settings),
        Operation.attach("early", settings=broker.settings),
    ):
        assert join.cancelled
    with pytest.raises(Cancelled), Operation.attach("early", settings=broker.settings) as op:
        op.raise_if_cancelled()
    assert broker.show("early").status is Status.CANCELLED


def test_starting_again_takes_the_operation_up(broker: Broker) -> None:
    first = Operation.start("import", id="again", total=10, settings=broker.settings)
    first.advance(6)
    assert first.flush()
    with Operation.start("import", id="again", total=10, settings=broker.settings) as second:
        second.advance(1)
    told = broker.data("again", "progress")
    assert told[-1]["current"] == 1
    assert [progress["percent"] for progress in told] == sorted(progress["percent"] for progress in told)
    assert_whole(broker.events("again"))


def test_starting_with_other_words_or_after_the_end_is_rejected(run: Run, broker: Broker) -> None:
    def nothing(op: Any) -> None: ...

    run(nothing, "import", id="taken", settings=broker.settings)
    with pytest.raises(OperationExists, match="choose another id"):
        run(nothing, "export", id="taken", settings=broker.settings)
    with pytest.raises(OperationEnded, match="choose another id"):
        run(nothing, "import", id="taken", settings=broker.settings)
    with pytest.raises(OperationEnded, match="succeeded"):
        run(nothing, "taken", how="attach", settings=broker.settings)
    with pytest.raises(InvalidInput, match="id"):
        run(nothing, "import", id="not an id", settings=broker.settings)
    with pytest.raises(InvalidInput, match="tags"):
        run(nothing, "import", tags="eu", settings=broker.settings)
    assert_whole(broker.events("taken"))


def test_joining_what_is_not_there_is_rejected(run: Run, broker: Broker) -> None:
    with pytest.raises(NotFound):
        run(lambda op: None, "nowhere", how="attach", settings=broker.settings)
    Operation.start("import", id="gone", settings=broker.settings).succeed()
    wait_until(lambda: broker.data("gone", "end"), "it ends")
    broker.delete("gone")
    with pytest.raises(Gone):
        run(lambda op: None, "gone", how="attach", settings=broker.settings)
    with pytest.raises(Gone):
        run(lambda op: None, "import", id="gone", settings=broker.settings)


def test_joining_goes_on_from_the_progress_there_is(run: Run, broker: Broker) -> None:
    main = Operation.start("import", id="shared", total=10, unit="rows", settings=broker.settings)
    main.advance(4)
    main.flush()
    run(lambda op: op.advance(1), "shared", how="attach", end_on_exit=False, settings=broker.settings)
    assert broker.show("shared").progress is not None
    assert (
        broker.data("shared", "progress")[-1] | {"current": 5, "total": 10, "unit": "rows"}
        == broker.data("shared", "progress")[-1]
    )
    assert broker.show("shared").status is Status.RUNNING
    run(lambda op: None, "shared", how="attach", settings=broker.settings)
    assert broker.show("shared").status is Status.SUCCEEDED
    main.advance(1)
    assert main.flush()
    with pytest.raises(OperationEnded):
        main.raise_if_cancelled()


@pytest.mark.parametrize("status", ["pending", "stalled"])
def test_who_joins_is_at_work(broker: Broker, status: str) -> None:
    Operation.start("import", id="idle", settings=broker.settings).flush()
    broker.set_status("idle", status)
    with Operation.attach("idle", settings=broker.settings):
        assert broker.show("idle").status is Status.RUNNING


def test_a_fenced_worker_is_told(run: Run, broker: Broker) -> None:
    def body(op: Any) -> None:
        broker.next_attempt("zombie")
        op.advance(1)
        wait_until(lambda: op.cancelled, "the rejection is heard")
        op.raise_if_cancelled()

    with pytest.raises(Fenced):
        run(body, "import", id="zombie", settings=broker.settings)
    assert broker.data("zombie", "end") == []


def test_a_fenced_worker_that_never_asks_is_told_when_it_leaves(run: Run, broker: Broker) -> None:
    def body(op: Any) -> None:
        broker.next_attempt("zombie")
        op.succeed()

    with pytest.raises(Fenced):
        run(body, "import", id="zombie", settings=broker.settings)


def test_the_code_s_own_exception_goes_before_a_rejection(run: Run, broker: Broker) -> None:
    def body(op: Any) -> None:
        broker.next_attempt("zombie")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(body, "import", id="zombie", settings=broker.settings)


def test_a_rejection_of_one_operation_does_not_touch_the_others(broker: Broker) -> None:
    operations = [Operation.start("import", id=f"op-{number}", settings=broker.settings) for number in range(20)]
    for op in operations[::2]:
        assert op.flush(), "it is created"
        broker.next_attempt(op.id)
    for op in operations:
        op.advance(1)
        op.succeed()
    for number, op in enumerate(operations):
        assert op.flush()
        assert bool(broker.data(op.id, "end")) == bool(number % 2)


def test_without_a_block_it_is_reported_just_so(broker: Broker) -> None:
    op = Operation.start("import", settings=broker.settings)
    op.advance(2)
    op.fail(ValueError("bad"))
    assert op.flush()
    assert broker.show(op.id).error == {"type": "ValueError", "message": "bad"}


async def test_the_asynchronous_one_can_be_awaited_and_tracks_what_is_asynchronous(broker: Broker) -> None:
    async def rows() -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    op = await AsyncOperation.start("import", id="plain", settings=broker.settings)
    assert [row async for row in op.track(rows())] == [0, 1, 2]
    assert list(op.track([3, 4])) == [3, 4]
    op.succeed()
    assert await op.flush()
    assert broker.data("plain", "progress")[-1]["current"] == 5


async def test_a_task_that_is_cancelled_ends_its_operation_as_cancelled(broker: Broker) -> None:
    begun = asyncio.Event()

    async def run() -> None:
        async with AsyncOperation.start("import", id="task", settings=broker.settings):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert broker.data("task", "end")[0]["status"] == "cancelled"


async def test_a_task_that_is_cancelled_while_it_starts_leaves_nothing_running(broker: Broker) -> None:
    task = asyncio.ensure_future(_started(broker))
    await asyncio.sleep(0)  # let it start
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: broker.data("cut", "end"), "it is ended")
    assert broker.data("cut", "end")[0]["status"] == "cancelled"


async def _started(broker: Broker) -> AsyncOperation:
    return await AsyncOperation.start("import", id="cut", settings=broker.settings)


@pytest.mark.over_redis
def test_a_required_start_needs_redis_and_says_so(run: Run, broker: Broker) -> None:
    away = broker.settings.model_validate(broker.settings.model_dump() | {"redis_url": "redis://127.0.0.1:1"})
    with pytest.raises(StorageUnavailable, match="can't be reached"):
        run(lambda op: None, "import", settings=away, required=True)


@pytest.mark.over_redis
def test_settings_that_disagree_are_rejected(run: Run, broker: Broker) -> None:
    settings = broker.settings.model_copy(update={"prefix": f"new-{token_hex(4)}"})
    Operation.start("import", settings=settings).succeed()
    other = settings.model_copy(update={"lanes": 3})
    with pytest.raises(SetupError, match="lanes"):
        run(lambda op: None, "import", settings=other, required=True)


def test_a_dropped_operation_stops_its_beats(broker: Broker) -> None:
    op = Operation.start("import", lease_s=0.06, settings=broker.settings)
    id, reporter = op.id, op._reporter
    deadline = broker.lease_deadline(id)
    wait_until(lambda: broker.lease_deadline(id) > deadline, "it beats")
    assert [event.type for event in broker.events(id)] == ["status", "status"]  # nothing else is stored
    del op
    assert reporter.idle
    assert reporter.heartbeat_due_at() == float("inf")


def test_a_pipeline_can_be_told_in_full(run: Run, broker: Broker) -> None:
    def work(op: Any) -> None:
        extract = op.stage("extract", weight=3, total=100)
        op.stage("load", weight=1)
        with extract:
            extract.update(current=42, in_flight=4)
            busy = PoolWorker(id=1, status="processing", item="chunk-7", percent=10.0)
            pool = Pool(active=4, max=8, queue_depth=13, workers=[busy])
            op.update(message="reading", unit="rows", metrics={"entities_total": 42}, workers=pool)
            op.flush() if isinstance(op, Operation) else None

    run(work, "embed", id="op", settings=broker.settings)
    told = next(data for data in broker.data("op", "progress") if data.get("workers"))
    Progress.model_validate(told)
    assert told["workers"] == {
        "active": 4,
        "max": 8,
        "queue_depth": 13,
        "workers": [{"id": 1, "status": "processing", "item": "chunk-7", "percent": 10.0}],
    }
    assert (told["unit"], told["message"], told["metrics"]) == ("rows", "reading", {"entities_total": 42})
    extract = told["stages"][0]
    assert (extract["name"], extract["current"], extract["total"], extract["in_flight"]) == ("extract", 42, 100, 4)
    assert extract["started_at"] is not None
    assert extract["duration_ms"] >= 0
    assert told["percent"] in (31.5, 75.0)  # while it runs, or at its end: 3 of 4 parts


def test_the_program_of_the_readme_can_be_run_again(address: str) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    program = readme.split("```python\n")[1].split("```")[0]
    for _ in range(2):
        finished(python(address, program))


def test_a_loop_says_how_many_and_what_and_ends_when_it_is_cancelled(run: Run, broker: Broker) -> None:
    def work(op: Any) -> None:
        done = 0
        for _ in op.track(iter(range(5)), total=5, description="first"):
            done += 1
        assert done == 5
        for number in op.track(range(10), description="second", raise_on_cancel=True):
            if number == 3:
                op._reporter.cancellation.request(CancelInfo("enough"))

    with pytest.raises(Cancelled, match="enough"):
        run(work, "import", id="a", settings=broker.settings)
    last = broker.data("a", "progress")[-1]
    assert (last["current"], last["total"], last["message"]) == (9, 15, "second")
    shown = broker.show("a")
    assert (shown.status, shown.error) == (Status.CANCELLED, {"type": "cancelled", "message": "enough"})


@pytest.mark.parametrize("total", [-1, "x", float("nan"), object()])
def test_a_number_of_items_that_is_none_is_ignored_and_told(broker: Broker, total: Any) -> None:
    with Operation.start("import", id="a", settings=broker.settings) as op:
        assert list(op.track(iter("ab"), total=total)) == ["a", "b"]
    last = broker.data("a", "progress")[-1]
    assert (last["current"], last["total"]) == (2, None)
    assert any("was ignored" in line for line in broker.logged("a"))


async def test_an_asynchronous_loop_takes_the_same_options(broker: Broker) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(9):
            yield number

    async def work(op: AsyncOperation) -> None:
        async for number in op.track(numbers(), total=9, description="reading", raise_on_cancel=True):
            if number == 3:
                op._reporter.cancellation.stop = CancelInfo("enough")  # without the cancel of this task

    async with AsyncOperation.start("import", id="a", settings=broker.settings) as op:
        with pytest.raises(Cancelled):
            await work(op)
    last = broker.data("a", "progress")[-1]
    assert (last["current"], last["total"], last["message"]) == (4, 9, "reading")


def test_a_metric_that_counts_loses_no_count_of_any_thread(broker: Broker) -> None:
    with Operation.start("import", id="a", settings=broker.settings) as op:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: op.increment("rows_bad"), range(200)))
        op.increment("rows_bad", by=-0.5)
        op.update(metrics={"text": "x"})
        op.increment("text", 2)
        for bad in ("x", None, float("inf"), object()):
            op.increment("rows_bad", bad)  # type: ignore[arg-type]
    assert broker.data("a", "progress")[-1]["metrics"] == {"rows_bad": 199.5, "text": 2}
    assert any("increment" in line for line in broker.logged("a"))


def test_code_that_holds_an_operation_cancels_it_with_a_reason(run: Run, broker: Broker) -> None:
    reason = "no rows".ljust(MAX_REASON_CHARS - 1) + "…"

    def work(op: Any) -> None:
        told: list[Exception] = []
        op.on_cancel(told.append)
        op.cancel("no rows".ljust(2000))
        op.cancel("again")
        assert op.ended
        assert [str(error) for error in told] == [f"operation a was cancelled: {reason}"]

    run(work, "import", id="a", settings=broker.settings)
    shown = broker.show("a")
    assert (shown.status, shown.error) == (Status.CANCELLED, {"type": "cancelled", "message": reason})


def test_the_time_that_has_passed_begins_at_the_start_and_stands_still_after_the_end(broker: Broker) -> None:
    with Operation.start("import", id="a", settings=broker.settings) as op:
        started = KEYS.operation("a").snapshot
        broker.redis.hset(started, "started", int(broker.now_ms()) - 3_600_000)
        with Operation.attach("a", end_on_exit=False, settings=broker.settings) as joined:
            assert 3_599_000 < joined.elapsed_ms < 3_700_000
        assert 0 <= op.elapsed_ms < 3_000_000
    ended = op.elapsed_ms
    wait_until(lambda: broker.show("a").done, "it has ended")
    assert op.elapsed_ms == ended


def fail_for(depth: int) -> None:
    if depth:
        return fail_for(depth - 1)
    try:
        raise KeyError("customer")
    except KeyError as error:
        raise ValueError("row 7 is bad") from error


@pytest.mark.parametrize("on", [False, True])
def test_a_failure_tells_its_traceback_and_cause_only_if_it_may(broker: Broker, on: bool) -> None:
    settings = broker.settings.model_copy(update={"error_tracebacks": on})
    with pytest.raises(ValueError, match="row 7"), Operation.start("import", id="a", settings=settings):
        fail_for(100)
    error = broker.show("a").error or {}
    assert (error.pop("type"), error.pop("message")) == ("ValueError", "row 7 is bad")
    if not on:
        assert error == {}
        return
    assert error["traceback"].endswith('raise ValueError("row 7 is bad") from error')
    assert len(error["traceback"]) <= MAX_TRACEBACK_CHARS
    assert (error["cause"]["type"], error["cause"]["message"]) == ("KeyError", "'customer'")
    assert 'raise KeyError("customer")' in error["cause"]["traceback"]


def test_tracebacks_and_causes_never_keep_an_end_from_being_stored(broker: Broker) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    small = {"error_tracebacks": True, "max_event_bytes": 1_024, "max_progress_bytes": 1_024}
    settings = broker.settings.model_copy(update=small)
    loop = Odd()
    loop.__cause__ = loop
    with pytest.raises(Odd), Operation.start("import", id="a", settings=settings):
        raise loop
    shown = broker.show("a")
    assert shown.status is Status.FAILED
    assert (shown.error or {})["type"].endswith("Odd")
