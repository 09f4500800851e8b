"""A cancel reaches the work wherever it is, and so do other signals."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator

import pytest

from progress_workers import AsyncOperation, Cancelled, Operation, Signal
from progress_workers.core.inbox import Inbox
from tests.servers import wait_until
from tests.workers.harness import KEYS, Broker


@pytest.fixture
def op(broker: Broker) -> Iterator[Operation]:
    with Operation.start("work", id="op", settings=broker.settings) as op:
        yield op


def test_an_idle_worker_hears_of_a_cancel_at_once_with_who_and_why(broker: Broker, op: Operation) -> None:
    heard = threading.Event()
    told: list[Exception] = []
    op.on_cancel(lambda error: (told.append(error), heard.set()))  # type: ignore[func-returns-value]
    broker.cancel("op", "enough")
    assert heard.wait(30)
    (error,) = told
    assert isinstance(error, Cancelled)
    assert (error.reason, error.by) == ("enough", "bob")
    op.fail(error)
    op.flush()
    shown = broker.show("op")
    assert shown.status == "cancelled"
    assert shown.cancel is not None
    assert (shown.cancel.reason, shown.cancel.by) == ("enough", "bob")


def test_signals_come_in_order_and_end_with_the_work(broker: Broker, op: Operation) -> None:
    taken: list[Signal] = []
    reader = threading.Thread(target=lambda: taken.extend(op.signals()))
    reader.start()
    broker.signal("op", "pause")
    broker.signal("op", "tune", {"speed": 3})
    broker.signal("op", "resume")
    wait_until(lambda: len(taken) == 3, "they come")
    assert taken == [Signal("pause", None, "bob"), Signal("tune", {"speed": 3}, "bob"), Signal("resume", None, "bob")]
    op.succeed()
    reader.join(30)
    assert not reader.is_alive()


def test_signals_that_are_there_can_be_taken_without_waiting(broker: Broker, op: Operation) -> None:
    assert list(op.signals(timeout=0)) == []
    broker.signal("op", "pause")
    taken: list[Signal] = []
    wait_until(lambda: taken.extend(op.signals(timeout=0)) or taken, "it comes")
    assert [signal.type for signal in taken] == ["pause"]


def test_waiting_for_a_signal_ends_with_its_time(op: Operation) -> None:
    began = time.monotonic()
    assert list(op.signals(timeout=0.05)) == []
    assert time.monotonic() - began < 30


def test_a_cancel_ends_the_waiting_for_signals(broker: Broker, op: Operation) -> None:
    broker.cancel("op")
    assert list(op.signals(timeout=30)) == []
    assert op.cancelled


def test_a_new_attempt_does_not_hear_what_the_one_before_was_sent(broker: Broker) -> None:
    Operation.start("work", id="op", settings=broker.settings)
    broker.signal("op", "pause")
    second = Operation.attach("op", new_attempt=True, settings=broker.settings)
    broker.signal("op", "resume")
    signal = next(second.signals(timeout=30))
    assert signal.type == "resume"


async def test_a_task_waits_for_signals(broker: Broker) -> None:
    async with AsyncOperation.start("work", id="op", settings=broker.settings) as op:
        taken, come = [], asyncio.Event()

        async def take() -> None:
            async for signal in op.signals():
                taken.append(signal.type)
                if len(taken) == 2:
                    come.set()

        taking = asyncio.create_task(take())
        for name in ("pause", "resume"):
            await asyncio.to_thread(broker.signal, "op", name)
        await asyncio.wait_for(come.wait(), 30)
        op.succeed()
        await asyncio.wait_for(taking, 30)
        assert [signal async for signal in op.signals(timeout=0.01)] == []
    assert taken == ["pause", "resume"]


async def test_a_cancel_interrupts_the_task_in_the_block_and_only_that(broker: Broker) -> None:
    other = asyncio.create_task(asyncio.sleep(3600))
    cleaned = []

    async def work() -> None:
        async with AsyncOperation.start("work", id="op", settings=broker.settings):
            asyncio.get_running_loop().run_in_executor(None, broker.cancel, "op", "enough")
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0)  # it can still clean up
                cleaned.append(True)

    with pytest.raises(Cancelled, match="enough"):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert cleaned
    assert not other.done()
    other.cancel()
    assert broker.show("op").status == "cancelled"


async def test_who_cancels_the_task_itself_is_not_taken_for_a_cancel_of_the_operation(broker: Broker) -> None:
    async def work() -> None:
        async with AsyncOperation.start("work", id="op", settings=broker.settings) as op:
            task.cancel()
            await asyncio.to_thread(broker.cancel, "op")
            op.raise_if_cancelled()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert broker.show("op").status == "cancelled"


async def test_a_cancel_that_comes_after_the_block_touches_nobody(broker: Broker) -> None:
    async with AsyncOperation.start("work", id="op", settings=broker.settings) as op:
        pass
    await asyncio.sleep(0.05)
    assert not op.cancelled


async def test_a_group_of_tasks_in_the_block_is_ended_with_it(broker: Broker) -> None:
    async def work() -> None:
        async with AsyncOperation.start("work", id="op", settings=broker.settings), asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(asyncio.sleep(30))
            await asyncio.to_thread(broker.cancel, "op")
            await asyncio.sleep(30)

    with pytest.raises(Cancelled):
        await work()
    assert broker.show("op").status == "cancelled"


def test_each_signal_is_heard_once_whoever_joins_later(broker: Broker, op: Operation) -> None:
    broker.signal("op", "toggle")
    assert next(op.signals(timeout=30)).type == "toggle"
    for _ in range(3):
        helper = Operation.attach("op", end_on_exit=False, settings=broker.settings)
        assert next(helper.signals(timeout=30)).type == "toggle"  # this reader has not read any signal yet
    broker.signal("op", "again")
    assert next(op.signals(timeout=30)).type == "again"
    assert list(op.signals(timeout=0.3)) == []


def test_a_signal_for_the_attempt_that_took_over_is_not_for_the_one_before(broker: Broker) -> None:
    first = Operation.start("work", id="op", settings=broker.settings)
    second = Operation.attach("op", new_attempt=True, settings=broker.settings)
    broker.signal("op", "delete-temporary-files")
    assert next(second.signals(timeout=30)).type == "delete-temporary-files"
    assert list(first.signals(timeout=0.3)) == []


@pytest.mark.parametrize("how", ["ended by its worker", "deleted"])
def test_who_helps_hears_at_once_that_it_is_over(broker: Broker, how: str) -> None:
    op = Operation.start("work", id="op", lease_s=None, settings=broker.settings)
    helper = Operation.attach("op", end_on_exit=False, settings=broker.settings)
    if how == "deleted":
        broker.delete("op")
    else:
        op.succeed()
    assert list(helper.signals(timeout=5)) == []
    assert helper.cancelled


async def test_a_group_in_which_several_hear_of_the_cancel_is_a_cancel(broker: Broker) -> None:
    async def part(op: AsyncOperation) -> None:
        while True:
            op.raise_if_cancelled()
            await asyncio.sleep(0.001)

    async def work() -> None:
        async with AsyncOperation.start("work", id="op", settings=broker.settings) as op:
            broker.cancel("op", "enough")
            async with asyncio.TaskGroup() as tasks:
                for _ in range(3):
                    tasks.create_task(part(op))

    with pytest.raises((Cancelled, ExceptionGroup)):
        await work()
    assert broker.show("op").status == "cancelled"


def test_a_foreign_key_in_the_place_of_signals_does_not_make_the_process_deaf(broker: Broker) -> None:
    ops = [Operation.start("work", id=f"op-{i}", settings=broker.settings) for i in range(2)]
    broker.redis.set(KEYS.operation("op-0").signals, "something else")
    heard = threading.Event()
    ops[1].on_cancel(lambda error: heard.set())
    broker.cancel("op-1")
    assert heard.wait(30)
    broker.cancel("op-0")
    wait_until(lambda: ops[0].cancelled, "its own operation hears, too")


def test_the_attempt_before_hears_though_the_clock_was_set_back(broker: Broker) -> None:
    first = Operation.start("work", id="op", lease_s=None, settings=broker.settings)
    signals = KEYS.operation("op").signals
    ahead = int(broker.now_ms()) + 3_600_000
    broker.redis.xadd(signals, {"t": "early", "d": "1"}, id=f"{ahead}-0")
    assert next(first.signals(timeout=30)).type == "early"
    Operation.attach("op", new_attempt=True, settings=broker.settings)
    wait_until(lambda: first.cancelled, "it hears")


def test_a_new_attempt_at_what_was_asked_to_stop_hears_only_of_that(broker: Broker) -> None:
    Operation.start("work", id="op", settings=broker.settings)
    broker.signal("op", "pause")
    broker.cancel("op", "enough")
    second = Operation.attach("op", new_attempt=True, settings=broker.settings)
    assert second.cancelled
    assert list(second.signals(timeout=0.2)) == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_signal_that_comes_between_a_reader_s_look_and_the_end_is_read(kind: str) -> None:
    class Late(deque[Signal]):
        """Gets a signal, and then the end, at the moment when a reader has found it empty."""

        def popleft(self) -> Signal:
            if not self and not inbox._closed:
                inbox.put(Signal("pause"))
                inbox.close()
                raise IndexError
            return super().popleft()

    async def read() -> list[Signal]:
        return [signal async for signal in inbox.each_async(None)]

    inbox = Inbox()
    inbox._signals = Late()
    assert (list(inbox.each(None)) if kind == "sync" else asyncio.run(read())) == [Signal("pause")]
