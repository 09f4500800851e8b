"""The ends of processes, threads and event loops: nothing hangs, and the end of the work is reported."""

import asyncio
import gc
import re
import threading
from pathlib import Path

import pytest

from progress_workers import AsyncOperation, Operation, transport
from tests.servers import wait_until
from tests.workers.harness import Broker, finished, python

GENERATOR = """
    from progress_workers import Operation
    def rows():
        with Operation.start("work", id="op") as op:
            for i in range(10):
                op.advance()
                yield i
    kept = rows()
    next(kept)
"""
DESTRUCTOR = """
    from progress_workers import Operation
    class Late:
        def __init__(self): self.op = Operation.start("work", id="op")
        def __del__(self):
            self.op.update(message="late")
            self.op.succeed()
            self.op.flush(5)
    late = Late()
"""


@pytest.mark.parametrize(("code", "status"), [(GENERATOR, "cancelled"), (DESTRUCTOR, "succeeded")])
def test_a_block_that_the_interpreter_closes_at_its_own_end_is_told(
    storage: str, broker: Broker, code: str, status: str
) -> None:
    finished(python(storage, code))
    assert broker.show("op").status == status


def test_a_task_that_is_cancelled_by_the_loop_s_own_clean_up_while_it_starts_leaves_nothing_running(
    broker: Broker,
) -> None:
    async def work() -> None:
        async with AsyncOperation.start("work", id="op", lease_s=1, settings=broker.settings):
            await asyncio.sleep(30)

    async def main() -> None:
        kept = asyncio.create_task(work())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not kept.done()

    asyncio.run(main())
    if broker.keys("*:op:op"):
        wait_until(lambda: broker.show("op").status == "cancelled", "what was opened is ended")


def test_waiting_in_vain_leaves_nothing_behind(broker: Broker) -> None:
    op = Operation.start("work", settings=broker.settings)
    op._link._sender._not_before = float("inf")  # as while Redis is unavailable
    op.log("waits")
    for _ in range(100):
        assert not op.flush(0)
    assert len(op._link._sender._waiters) == 0
    op._link._sender._not_before = 0
    op.succeed()
    assert op.flush()


def test_a_dropped_operation_is_not_kept_alive_by_who_wants_to_hear_of_its_cancel(broker: Broker) -> None:
    op = Operation.start("work", lease_s=1, settings=broker.settings)
    op.on_cancel(lambda error, op=op: op.log(str(error)))  # type: ignore[misc]
    reporter = op._reporter
    del op
    gc.collect()
    assert reporter.heartbeat_due_at() == float("inf")


def test_whatever_is_called_back_does_not_stop_the_threads_that_serve_everybody(broker: Broker) -> None:
    def leave(error: Exception) -> None:
        raise SystemExit

    operations = [Operation.start("work", id=f"op-{i}", lease_s=1, settings=broker.settings) for i in range(2)]
    operations[0].on_cancel(leave)
    heard = threading.Event()
    operations[1].on_cancel(lambda error: heard.set())
    broker.cancel("op-0")
    broker.cancel("op-1")
    assert heard.wait(30)
    deadline = broker.lease_deadline("op-1")
    wait_until(lambda: broker.lease_deadline("op-1") > deadline, "it still beats")
    for op in operations:
        op.fail("stopped")


def test_a_signal_handler_that_reports_while_the_thread_is_started_does_not_wait_for_it(
    storage: str, broker: Broker
) -> None:
    code = """
        import os, signal, threading
        from progress_workers import Operation
        op = Operation.start("work", id="op")
        op.flush()
        signal.signal(signal.SIGUSR1, lambda *_: op.log("handled"))
        child = os.fork()
        if not child:
            starting = threading.Thread.start
            def start(self):
                os.kill(os.getpid(), signal.SIGUSR1)
                starting(self)
            threading.Thread.start = start
            op.log("first")
            op.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        op.succeed()
        op.flush()
    """
    finished(python(storage, code))
    assert set(broker.logged("op")) == {"first", "handled"}


def test_what_the_threads_share_has_no_lock_that_would_stay_held_when_they_stop_with_the_interpreter() -> None:
    found = {}
    for path in sorted(Path(transport.__file__).parent.glob("*.py")):
        words = set(re.findall(r"\b(?:Lock|RLock|Condition|Semaphore|Barrier|Queue)\b", path.read_text()))
        if words:
            found[path.name] = words
    # Only user threads hold these two locks: one to start a thread, one to create a link.
    assert found == {"daemon.py": {"Lock"}, "registry.py": {"RLock"}}
