"""How operations end where nobody says so: forgotten ends, nested blocks, generators, SIGTERM, terminated pools."""

import asyncio
import contextlib
import gc
import logging
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from progress_workers import AsyncOperation, Cancelled, Operation, current
from progress_workers.null import NULL_OPERATION, NULL_STAGE
from tests.servers import RealRedis
from tests.workers.conftest import Run
from tests.workers.harness import Broker, environment, finished, python


def test_a_block_inside_a_block_of_the_same_operation_loses_nothing(broker: Broker) -> None:
    with Operation.start("work", id="op", settings=broker.settings) as op:
        with op:
            op.advance()
        assert current() is op
        assert not op.ended
        op.advance()
        op.log("after")
    assert (broker.show("op").status, broker.logged("op")) == ("succeeded", ["after"])
    assert broker.data("op", "progress")[-1]["current"] == 2


async def test_a_block_of_a_task_inside_a_block_of_the_same_operation_loses_nothing(broker: Broker) -> None:
    async with AsyncOperation.start("work", id="op", settings=broker.settings) as op:

        async def part() -> None:
            async with op:
                op.advance()

        async with op:
            await asyncio.gather(part(), part())
        op.log("after")
    assert (broker.show("op").status, broker.logged("op")) == ("succeeded", ["after"])
    assert broker.data("op", "progress")[-1]["current"] == 2


async def test_a_cancel_ends_all_blocks_of_an_operation_as_one(broker: Broker) -> None:
    async def work() -> None:
        async with AsyncOperation.start("work", id="op", settings=broker.settings) as op, op:
            await asyncio.to_thread(broker.cancel, "op", "enough")
            await asyncio.sleep(60)

    with pytest.raises(Cancelled, match="enough"):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert broker.show("op").status == "cancelled"


def test_a_forgotten_end_is_warned_about(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    for id in ("forgotten", "handed on", "joined", "ended"):
        Operation.create("work", id=id.replace(" ", "-"), settings=broker.settings)
    Operation.attach("forgotten", settings=broker.settings).advance()
    Operation.attach("handed-on", settings=broker.settings)
    Operation.attach("joined", settings=broker.settings, end_on_exit=False).advance()
    Operation.attach("ended", settings=broker.settings).succeed()
    gc.collect()
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert warned[0].startswith("operation forgotten was never ended")
    assert "`with` block, or call `succeed` or `fail`" in warned[0]


def test_a_process_that_forgets_an_end_says_so_as_it_ends(storage: str, broker: Broker) -> None:
    process = python(
        storage, "from progress_workers import Operation; op = Operation.start('work', id='op'); op.log('x')"
    )
    _, errors = process.communicate(timeout=240)
    assert errors.count("operation op was never ended") == 1


def generated() -> Iterator[str]:
    with Operation.start("read", id="inner"):
        for row in current().track(["a", "b"]):
            current().log(f"read {row}")
            yield row


def managed_inside() -> Iterator[str]:
    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(Operation.start("read", id="inner"))
            yield

    with opened():
        for row in current().track(["a", "b"]):
            current().log(f"read {row}")
            yield row


@pytest.mark.parametrize("rows", [generated, managed_inside])
def test_a_block_in_a_generator_keeps_to_itself(rows: Any, broker: Broker, storage: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROGRESS_REDIS_URL", storage)
        with Operation.start("write", id="outer", settings=broker.settings):
            for row in rows():
                current().log(f"wrote {row}")
                current().advance()
    assert broker.logged("inner") == ["read a", "read b"]
    assert broker.logged("outer") == ["wrote a", "wrote b"]
    assert [broker.data(name, "progress")[-1]["current"] for name in ("inner", "outer")] == [2, 2]


def test_a_loop_over_a_generator_s_block_reports_nothing_without_an_operation_of_its_own(
    broker: Broker, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRESS_REDIS_URL", storage)
    for _ in generated():
        assert current() is NULL_OPERATION
        current().log("not of the generator")
        current().advance()
    assert broker.logged("inner") == ["read a", "read b"]
    assert broker.data("inner", "progress")[-1]["current"] == 2


@pytest.fixture
def fixture_with_a_block(broker: Broker) -> Iterator[Operation]:
    with Operation.start("job", settings=broker.settings) as op:
        yield op


def test_the_block_of_a_fixture_goes_on_in_the_test(fixture_with_a_block: Operation) -> None:
    assert current() is fixture_with_a_block


async def test_a_block_in_an_asynchronous_generator_keeps_to_itself(broker: Broker) -> None:
    async def rows() -> AsyncIterator[AsyncOperation]:
        async with AsyncOperation.start("read", settings=broker.settings) as inner:
            assert current() is inner
            yield inner
            await asyncio.sleep(0)
            assert current() is inner

    async with AsyncOperation.start("write", settings=broker.settings) as outer:
        async for _ in rows():
            assert current() is outer
        assert current() is outer


def test_the_block_of_a_context_manager_that_is_written_as_a_generator_is_current(broker: Broker) -> None:
    @contextlib.contextmanager
    def job() -> Iterator[Operation]:
        with Operation.start("job", settings=broker.settings) as op:
            yield op

    with Operation.start("outer", settings=broker.settings), job() as op:
        assert current() is op


IDLE = "while True: time.sleep(0.05)"
"""Work that waits as `time.sleep(120)` does, in steps: Python calls no handler while one wait lasts, if the signal came
just before it began."""
WAITS = """
    import os, signal, sys, threading, time
    from progress_workers import Operation, current
    {before}
    with Operation.start("work", id="op", total=10) as op:
        op.advance(3)
        op.log("so far")
        print("ready", flush=True)
        {work}
    print("done", flush=True)
"""


@contextlib.contextmanager
def started(url: str, before: str = "", work: str = IDLE) -> Iterator["subprocess.Popen[str]"]:
    with ready(python(url, WAITS.format(before=before, work=work))) as process:
        yield process


@contextlib.contextmanager
def ready(process: "subprocess.Popen[str]", said: str = "ready") -> Iterator["subprocess.Popen[str]"]:
    with process:
        try:
            assert process.stdout is not None
            while process.stdout.readline() != f"{said}\n":
                assert process.poll() is None
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("work", [IDLE, "while not threading.Event().wait(0.05): pass"], ids=["sleeps", "waits"])
def test_sigterm_ends_an_operation_with_a_reason(storage: str, broker: Broker, work: str) -> None:
    with started(storage, work=work) as process:
        process.terminate()
        process.wait(timeout=60)
    assert process.returncode == -signal.SIGTERM  # as without us
    shown = broker.show("op")
    assert (shown.status, shown.progress["current"]) == ("cancelled", 3)
    assert shown.error is not None
    assert shown.error["message"] == "its process was asked to terminate (SIGTERM)"
    assert broker.logged("op") == ["so far"]


def test_sigterm_stores_what_a_process_that_joined_has_reported(storage: str, broker: Broker) -> None:
    Operation.create("work", id="op", settings=broker.settings)
    code = f"""
        import time
        from progress_workers import Operation
        with Operation.attach("op", end_on_exit=False, interval_s=3600) as op:
            op.update(message="begun")
            op.flush()
            op.log("so far")
            print("ready", flush=True)
            {IDLE}
        """
    with ready(python(storage, code)) as process:
        process.terminate()
        process.wait(timeout=60)
    assert (process.returncode, broker.show("op").status) == (-signal.SIGTERM, "running")
    assert broker.logged("op") == ["so far"]


def test_sigterm_ends_an_asynchronous_operation(storage: str, broker: Broker) -> None:
    code = """
        import asyncio
        from progress_workers import AsyncOperation

        async def work():
            async with AsyncOperation.start("work", id="op"):
                print("ready", flush=True)
                while True:
                    await asyncio.sleep(0.05)

        asyncio.run(work())
        """
    with ready(python(storage, code)) as process:
        process.terminate()
        process.wait(timeout=60)
    assert (process.returncode, broker.show("op").status) == (-signal.SIGTERM, "cancelled")


@pytest.mark.parametrize(
    ("before", "status", "code"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))", "failed", 3),
        ("signal.signal(signal.SIGTERM, lambda *_: print('told'))", "succeeded", 0),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "succeeded", 0),
        ("os.environ['PROGRESS_ON_SIGTERM'] = 'leave'", "running", -signal.SIGTERM),
        ("os.environ['PROGRESS_ON_SIGTERM'] = 'fail'", "failed", -signal.SIGTERM),
    ],
    ids=["exits", "goes on", "ignores", "left open", "fails"],
)
def test_a_programs_own_handler_or_the_settings_decide(
    storage: str, broker: Broker, before: str, status: str, code: int
) -> None:
    with started(storage, before, work="[time.sleep(0.05) for _ in range(20)]") as process:
        process.terminate()
        process.wait(timeout=60)
    assert (process.returncode, broker.show("op").status) == (code, status)


def test_sigterm_is_not_held_up_by_a_redis_that_is_away(kept_redis: RealRedis) -> None:
    with started(kept_redis.url) as process:
        kept_redis.stop(signal.SIGKILL)
        began = time.monotonic()
        process.terminate()
        process.wait(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert time.monotonic() - began < 30  # 2 s on a quiet machine


def test_the_task_of_a_queue_is_not_ended_by_sigterm(storage: str, broker: Broker) -> None:
    before = "from progress_workers.queues import _runs"
    work = f"""task = _runs.begin(Operation, "task", {{"kind": "task"}})
        task.__enter__()
        print("begun", flush=True)
        {IDLE}"""
    with started(storage, before, work) as process, ready(process, "begun"):
        process.terminate()
        process.wait(timeout=60)
    assert (broker.show("op").status, broker.show("task").status) == ("cancelled", "running")


def test_what_the_processes_of_a_terminated_pool_say_is_stored(storage: str, broker: Broker) -> None:
    process = python(
        storage,
        """
        import multiprocessing
        from progress_workers import Operation, current

        def work(item):
            current().log(f"item {item}")
            return item

        with Operation.start("work", id="op", interval_s=3600) as op:
            for number in range(0, 30, 6):
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    pool.map(work, range(number, number + 6), chunksize=1)
            for _ in range(20):  # SIGTERM comes while they begin
                with multiprocessing.get_context("fork").Pool(2):
                    pass
        """,
    )
    finished(process)
    assert sorted(broker.logged("op")) == sorted(f"item {number}" for number in range(30))
    assert broker.show("op").status == "succeeded"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_a_pool_ends_though_its_main_thread_takes_no_note_of_sigterm(
    method: str, storage: str, broker: Broker, tmp_path: Path
) -> None:
    """As where the signal comes just before that thread waits for work: what another thread gets does not wake it."""
    code = f"""
        import multiprocessing, os, signal, sys, threading, time
        from progress_workers import Operation, current

        def work(nothing, wrapped, reports):
            if reports:
                current().log(f"said {{wrapped}}")

            def terminate():
                time.sleep(0.2)  # until the main thread waits
                signal.raise_signal(signal.SIGTERM)

            threading.Thread(target=terminate, daemon=True).start()
            nothing.acquire()

        def end(target, *args):
            process = context.Process(target=target, args=args)
            process.start()
            process.join(60)
            print(process.exitcode, flush=True)
            process.kill()

        context = multiprocessing.get_context("{method}")
        if __name__ == "__main__":
            nothing = context.Semaphore(0)
            with Operation.start("work", id="op", interval_s=3600) as op:
                end(work, nothing, False, False)
                if "{method}" == "fork":
                    end(work, nothing, False, True)
                end(op.wrap(work), nothing, True, True)
        """
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(code))
    process = subprocess.Popen(
        [sys.executable, program], env=environment(storage), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    ends = 3 if method == "fork" else 2
    assert finished(process) == f"{-signal.SIGTERM}\n" * ends
    assert broker.logged("op") == ["said False", "said True"][-ends + 1 :]
    assert broker.show("op").status == "succeeded"


def test_pickling_says_what_to_do_instead(run: Run, broker: Broker) -> None:
    def body(op: Any) -> None:
        with pytest.raises(TypeError, match=r"pass its id \('op'\).*attach\(id, end_on_exit=False\)"):
            pickle.dumps(op)
        with pytest.raises(TypeError, match=r"stage 'one' can't be pickled.*stage\(name\)"):
            pickle.dumps(op.stage("one"))

    run(body, "work", id="op", settings=broker.settings)
    assert pickle.loads(pickle.dumps((NULL_OPERATION, NULL_STAGE))) == (NULL_OPERATION, NULL_STAGE)
