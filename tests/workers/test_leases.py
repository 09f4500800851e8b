"""A worker that is stopped, killed or cut off is detected; a worker that is only busy is not."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from progress_workers import AsyncOperation, Fenced, Operation, OperationEnded
from tests.servers import wait_until
from tests.workers.harness import Broker, finished
from tests.workers.harness import worker as start
from tests.workers.reaping import Reaping

LEASE_S = 1.5  # machines are shared: a heartbeat may be half a second late


@pytest.fixture
def worker_lost_after_s() -> float:
    """How long a stalled operation waits for its worker, in seconds."""
    return 1


@pytest.fixture
def reaped(storage: str, address: str, worker_lost_after_s: float) -> Iterator[Broker]:
    """A broker whose leases are checked, as a server does it."""
    rules = {"worker_lost_after_s": worker_lost_after_s, "lease_s": LEASE_S, "lease_check_interval_s": 0.1}
    broker = Broker(storage, address, **rules)
    with Reaping(broker.store_settings):
        yield broker
    broker.redis.close()


WORK = """
    import sys, time
    from progress_workers import Operation
    from progress_broker.errors import BrokerError
    try:
        with Operation.start("work", id="op", lease_s={lease_s}) as op:
            op.log("begun")
            op.flush()
            print("begun", flush=True)
            for line in sys.stdin:
                exec(line)
    except BrokerError as error:
        print(error.code, flush=True)
"""


def status(broker: Broker) -> str:
    return broker.show("op").status.value


def statuses(broker: Broker) -> list[str]:
    return [event.data["status"] for event in broker.events("op") if event.type in ("status", "end")]


def test_a_killed_worker_s_operation_stalls_and_ends_as_lost(reaped: Broker, address: str) -> None:
    worker = start(address, WORK.format(lease_s=LEASE_S))
    assert worker.stdout is not None
    assert worker.stdout.readline() == "begun\n"
    worker.kill()
    worker.communicate()
    wait_until(lambda: status(reaped) == "stalled", "it stalls")
    wait_until(lambda: status(reaped) == "failed", "it ends")
    error = reaped.show("op").error
    assert error is not None
    assert error["type"] == "worker-lost"
    assert reaped.logged("op") == ["begun"]


@pytest.mark.parametrize("worker_lost_after_s", [60])
def test_a_stopped_worker_stalls_and_runs_again_when_it_goes_on(reaped: Broker, address: str) -> None:
    worker = start(address, WORK.format(lease_s=LEASE_S))
    assert worker.stdout is not None
    assert worker.stdout.readline() == "begun\n"
    os.kill(worker.pid, signal.SIGSTOP)
    wait_until(lambda: status(reaped) == "stalled", "it stalls")
    os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: status(reaped) == "running", "it is back")
    finished(worker)
    pending, running, *between, last = statuses(reaped)
    assert (pending, running, last) == ("pending", "running", "succeeded")
    assert between == ["stalled", "running"] * (len(between) // 2)  # on a busy machine it may stall again


def test_a_worker_that_wakes_after_it_was_given_up_changes_nothing_and_is_told(reaped: Broker, address: str) -> None:
    worker = start(address, WORK.format(lease_s=LEASE_S))
    assert worker.stdout is not None
    assert worker.stdout.readline() == "begun\n"
    os.kill(worker.pid, signal.SIGSTOP)
    wait_until(lambda: status(reaped) == "failed", "it is given up")
    before = reaped.events("op")
    os.kill(worker.pid, signal.SIGCONT)
    out, _ = worker.communicate("op.advance(5); op.log('I am back'); op.flush()\n", timeout=30)
    assert out == "operation-ended\n"
    assert reaped.events("op") == before


def test_a_zombie_that_wakes_after_its_successor_finished_changes_nothing(reaped: Broker, address: str) -> None:
    worker = start(address, WORK.format(lease_s=60))
    assert worker.stdout is not None
    assert worker.stdout.readline() == "begun\n"
    os.kill(worker.pid, signal.SIGSTOP)
    with Operation.attach("op", new_attempt=True, settings=reaped.settings) as successor:
        assert successor.attempt == 2
        successor.advance(3)
        successor.succeed({"by": "the second"})
    before = reaped.events("op"), reaped.show("op")
    os.kill(worker.pid, signal.SIGCONT)
    out, _ = worker.communicate("op.advance(5); op.log('I am back'); op.fail('me'); op.flush()\n", timeout=30)
    assert out in ("operation-ended\n", "fenced\n")
    assert (reaped.events("op"), reaped.show("op")) == before


def test_a_worker_whose_computing_holds_the_interpreter_does_not_look_dead(reaped: Broker, address: str) -> None:
    """As a sort or a hash of much does; how long those take, the machine decides."""
    worker = start(address, WORK.format(lease_s=15))  # the default
    assert worker.stdout is not None
    worker.stdout.readline()
    worker.communicate("import ctypes; ctypes.PyDLL(None).sleep(5); op.log('busy'); op.flush()\n", timeout=240)
    assert statuses(reaped) == ["pending", "running", "succeeded"]


def await_beat(broker: Broker) -> None:
    before = broker.lease_deadline("op")
    wait_until(lambda: broker.lease_deadline("op") > before, "a beat is heard")


def test_beats_go_on_while_plain_code_computes(reaped: Broker, address: str, tmp_path: Path) -> None:
    worker = start(address, WORK.format(lease_s=15))
    assert worker.stdout is not None
    worker.stdout.readline()
    enough, begun = tmp_path / "enough", tmp_path / "begun"
    code = f"import os, pathlib\npathlib.Path({str(begun)!r}).touch()\n"
    code += f"while not os.path.exists({str(enough)!r}): sum(range(1000))\n"
    await_beat(reaped)  # the next one comes no sooner than a third of a lease later
    assert worker.stdin is not None
    worker.stdin.write(f"exec({code!r})\n")
    worker.stdin.flush()
    wait_until(begun.exists, "it computes")
    await_beat(reaped)
    enough.touch()
    finished(worker)
    assert statuses(reaped) == ["pending", "running", "succeeded"]


def test_a_fenced_worker_is_told_without_saying_anything(reaped: Broker) -> None:
    told: list[Exception] = []
    first = Operation.start("work", id="op", settings=reaped.settings, lease_s=3600)
    first.on_cancel(told.append)
    Operation.attach("op", new_attempt=True, settings=reaped.settings)
    wait_until(lambda: told, "it is told")
    assert isinstance(told[0], Fenced)
    with pytest.raises(Fenced):
        first.raise_if_cancelled()


@pytest.mark.parametrize("lease_s", [3600, None])
def test_a_worker_whose_operation_is_ended_by_force_is_told_at_once(reaped: Broker, lease_s: float | None) -> None:
    told: list[Exception] = []
    op = Operation.start("work", id="op", settings=reaped.settings, lease_s=lease_s)
    op.on_cancel(told.append)
    reaped.cancel("op", force=True)
    wait_until(lambda: told, "it is told")
    assert isinstance(told[0], OperationEnded)
    assert reaped.show("op").status == "cancelled"


def test_a_new_attempt_counts_from_the_beginning_and_is_shown(reaped: Broker) -> None:
    first = Operation.start("work", id="op", settings=reaped.settings, total=10)
    first.advance(7)
    first.flush()
    second = Operation.start("work", id="op", settings=reaped.settings, total=10, new_attempt=True, worker="b:2")
    second.advance(1)
    second.flush()
    shown = reaped.show("op")
    assert (shown.attempt, shown.worker) == (2, "b:2")
    assert shown.progress is not None
    assert shown.progress["percent"] == 10
    begun = [event.data for event in reaped.events("op") if event.type == "status"][-1]
    assert begun == {"status": "running", "attempt": 2, "worker": "b:2"}


def test_a_new_attempt_at_what_nobody_has_begun_is_the_first(reaped: Broker) -> None:
    assert Operation.create("work", id="op", settings=reaped.settings) == "op"
    assert Operation.create("work", id="op", settings=reaped.settings) == "op"
    assert status(reaped) == "pending"
    with Operation.start("work", id="op", settings=reaped.settings, new_attempt=True) as op:
        assert op.attempt == 1
    assert statuses(reaped) == ["pending", "running", "succeeded"]


def test_a_new_attempt_at_what_was_asked_to_stop_hears_of_it(reaped: Broker) -> None:
    Operation.start("work", id="op", settings=reaped.settings)
    reaped.cancel("op", "enough")
    second = Operation.attach("op", new_attempt=True, settings=reaped.settings)
    assert (second.attempt, second.cancelled) == (2, True)
    second.fail("stopped")
    second.flush()


def test_an_attempt_that_gives_up_keeps_the_operation_for_the_next(reaped: Broker) -> None:
    with Operation.start("work", id="op", settings=reaped.settings) as op:
        op.retry_in(60, ValueError("no luck"))
    assert op.ended
    wait_until(lambda: reaped.lease_deadline("op") > reaped.now_ms() + 50_000, "the lease is held")
    assert status(reaped) == "running"
    assert reaped.logged("op") == ["attempt 1 failed: ValueError: no luck; the next attempt follows within 60 s"]
    with Operation.attach("op", new_attempt=True, settings=reaped.settings):
        pass
    assert statuses(reaped)[-2:] == ["running", "succeeded"]


async def test_a_fenced_task_is_cancelled_and_told_by_an_exception_it_can_catch(reaped: Broker) -> None:
    async def work() -> None:
        async with AsyncOperation.start("work", id="op", settings=reaped.settings):
            await AsyncOperation.attach("op", new_attempt=True, settings=reaped.settings)
            await asyncio.sleep(30)

    with pytest.raises(Fenced):
        await work()
    await asyncio.sleep(0)  # the task must not stay cancelled
