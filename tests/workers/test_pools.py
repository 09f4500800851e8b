"""Functions in the threads and processes of pools report to the operation of the code that started them."""

import asyncio
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from progress_workers import AsyncOperation, Operation, current
from progress_workers.null import NULL_OPERATION
from tests.workers.harness import Broker


def work(number: int) -> int:
    current().advance()
    current().log(f"part {number}")
    return number * 2


def checked(number: int) -> str:
    return f"{work(number)} {current().id}"


def assert_counted(broker: Broker, parts: int) -> None:
    assert sorted(broker.logged("op")) == sorted(f"part {number}" for number in range(parts))
    assert broker.show("op").progress["current"] == parts
    assert broker.show("op").status == "succeeded"


def test_threads_of_a_pool_report_to_it_and_nothing_is_left_behind(broker: Broker) -> None:
    with Operation.start("work", id="op", settings=broker.settings) as op, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(op.wrap(work), range(20))) == [2 * number for number in range(20)]
        assert pool.submit(lambda: current()).result() is NULL_OPERATION
        assert pool.submit(op.wrap(lambda: current())).result() is op
    assert_counted(broker, 20)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_pools_count_together(method: str, broker: Broker) -> None:
    context: Any = multiprocessing.get_context(method)
    with Operation.start("work", id="op", total=20, settings=broker.settings) as op:
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(op.wrap(checked), range(10))) == [f"{2 * number} op" for number in range(10)]
        with context.Pool(2) as pool:
            assert pool.map(op.wrap(work), range(10, 20)) == [2 * number for number in range(10, 20)]
    assert_counted(broker, 20)


def test_a_forked_process_that_is_not_of_a_pool_reports_too(broker: Broker) -> None:
    with Operation.start("work", id="op", settings=broker.settings) as op:
        process = multiprocessing.get_context("fork").Process(target=op.wrap(work), args=(0,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    assert_counted(broker, 1)


async def test_an_asynchronous_operation_wraps_functions_for_executors(broker: Broker) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncOperation.start("work", id="op", settings=broker.settings) as op:
        with ThreadPoolExecutor(2) as threads:
            await asyncio.gather(*(loop.run_in_executor(threads, op.wrap(work), number) for number in range(5)))
        await asyncio.to_thread(work, 5)  # needs no wrap
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
            assert await loop.run_in_executor(processes, op.wrap(work), 6) == 12
    assert_counted(broker, 7)


def test_what_can_t_be_joined_runs_unreported(broker: Broker, caplog: Any) -> None:
    with Operation.start("work", id="op", settings=broker.settings) as op:
        copy = pickle.loads(pickle.dumps(op.wrap(work)))
    assert copy(3) == 6
    assert sum("runs without being reported" in said for said in caplog.messages) == 1
    assert NULL_OPERATION.wrap(work) is work
    with pytest.raises(TypeError, match="asyncio"):
        op.wrap(asyncio.sleep)


def test_an_activated_operation_is_current_everywhere_until_it_ends(broker: Broker) -> None:
    """As in a notebook, whose cells have no block in common."""
    op = Operation.start("work", id="op", settings=broker.settings).activate()
    try:
        assert current() is op
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
        assert seen == [op]
        with Operation.start("inner", settings=broker.settings) as inner:
            assert current() is inner
        current().log("cell 2")
        op.succeed()
        assert current() is NULL_OPERATION
        assert op.flush()
        assert broker.logged("op") == ["cell 2"]

        first = Operation.start("work", settings=broker.settings).activate()
        second = Operation.start("work", settings=broker.settings).activate()  # replaces it
        assert current() is second
        first.deactivate()
        assert current() is second
        second.deactivate()
        assert current() is NULL_OPERATION
        first.succeed()
        second.succeed()
    finally:
        current().deactivate()
