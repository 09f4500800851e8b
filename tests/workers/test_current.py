"""The current operation: libraries report without receiving it, and report nothing if there is none."""

import asyncio
import inspect
import threading

import progress_workers
from progress_workers import AsyncOperation, Operation, current, track
from progress_workers.base import BaseOperation
from progress_workers.core.progress.stage import Stage
from progress_workers.null import NULL_OPERATION, NULL_STAGE
from tests.workers.conftest import Run
from tests.workers.harness import Broker


def library() -> None:
    for _ in track("abc"):
        pass
    current().log("from the library")
    with current().stage("polish") as stage:
        stage.advance()


def test_a_library_reports_to_the_operation_whose_block_it_is_called_in(run: Run, broker: Broker) -> None:
    run(lambda op: library(), "work", id="op", settings=broker.settings)
    assert broker.logged("op") == ["from the library"]
    progress = broker.data("op", "progress")[-1]
    assert (progress["current"], progress["total"]) == (3, 3)
    assert progress["stages"][0]["name"] == "polish"
    assert current() is NULL_OPERATION


def test_outside_an_operation_it_reports_nowhere() -> None:
    library()
    assert list(track(range(3))) == [0, 1, 2]
    assert list(current().track("ab")) == ["a", "b"]
    assert (current().id, current().cancelled) == ("", False)


def test_all_that_can_be_said_of_an_operation_can_be_said_of_none() -> None:
    for real, none in (
        (BaseOperation, NULL_OPERATION),
        (Operation, NULL_OPERATION),
        (AsyncOperation, NULL_OPERATION),
        (Stage, NULL_STAGE),
    ):
        for name in vars(real):
            if not name.startswith("_") and name not in ("create", "start", "attach"):
                assert hasattr(none, name), name
    said = {
        "log": ("x",),
        "fail": ("x",),
        "publish": ("x",),
        "stage": ("x",),
        "retry_in": (1.0,),
        "on_cancel": (print,),
        "track": ([],),
        "child": ("x",),
        "increment": ("x",),
        "wrap": (print,),
    }
    for name, method in inspect.getmembers(NULL_OPERATION, inspect.ismethod):
        if not name.startswith("_"):
            method(*said.get(name, ()))


def test_blocks_nest(broker: Broker) -> None:
    with Operation.start("outer", settings=broker.settings) as outer:
        with Operation.start("inner", settings=broker.settings) as inner:
            assert current() is inner
        assert current() is outer


async def test_each_task_has_its_own(broker: Broker) -> None:
    async def work(number: int) -> bool:
        async with AsyncOperation.start("work", settings=broker.settings) as op:
            await asyncio.sleep(0.01 * number)
            return current() is op and await asyncio.to_thread(lambda: current() is op)

    assert all(await asyncio.gather(*(work(number) for number in range(5))))


def test_a_plain_thread_has_none_unless_it_is_handed_one(broker: Broker) -> None:
    seen: list[BaseOperation] = []
    with Operation.start("work", settings=broker.settings):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == [NULL_OPERATION]


def test_events_of_one_s_own_are_stored_as_they_are(run: Run, broker: Broker) -> None:
    run(lambda op: op.publish("thumbnail", {"url": "/1.png"}), "work", id="op", settings=broker.settings)
    assert broker.data("op", "thumbnail") == [{"url": "/1.png"}]


def test_what_took_no_work_is_no_part_of_the_rate(run: Run, broker: Broker) -> None:
    def work(op: BaseOperation) -> None:
        op.skip(900)
        op.advance(1)

    run(work, "work", id="op", total=1000, settings=broker.settings, interval_s=3600)
    progress = broker.data("op", "progress")[-1]
    assert (progress["current"], progress["percent"]) == (901, 90.1)
    assert progress_workers.current() is NULL_OPERATION


def test_blocks_may_be_left_in_any_order(broker: Broker) -> None:
    first, second = (Operation.start("work", settings=broker.settings) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current() is second
    second.__exit__(None, None, None)
    assert current() is NULL_OPERATION
