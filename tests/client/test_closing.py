"""Clients that are closed while they are used, or used where they can't be: the error says so, and nothing hangs."""

import asyncio
import gc
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from progress_broker.settings import Settings
from progress_client import AsyncClient, Client, Snapshot
from progress_client.backend import AT_EXIT, CLOSED, OTHER_LOOP, OTHER_PROCESS
from tests.workers.harness import finished, python


async def followed(client: AsyncClient, id: str, begun: asyncio.Event) -> None:
    async for _ in client.watch(id):
        begun.set()


async def test_what_waits_when_a_client_is_closed_says_so_and_nothing_else(
    aclient: AsyncClient, id: str, caplog: pytest.LogCaptureFixture
) -> None:
    await aclient.create(id=id)
    begun = asyncio.Event()
    waiting: list[Coroutine[Any, Any, Any]] = [followed(aclient, id, begun), aclient.wait(id), aclient.wait(id, 1000)]
    tasks = [asyncio.create_task(one) for one in waiting]
    await begun.wait()
    tasks += [asyncio.create_task(aclient.get(id)) for _ in range(20)]
    await asyncio.sleep(0)
    await aclient.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {str(outcome) for outcome in outcomes} == {CLOSED}
    assert caplog.messages == []
    assert (await aclient.get(id)).id == id  # it opens anew


async def test_a_task_that_is_cancelled_while_its_client_is_closed_is_cancelled(aclient: AsyncClient, id: str) -> None:
    await aclient.create(id=id)
    begun = asyncio.Event()
    task = asyncio.create_task(followed(aclient, id, begun))
    await begun.wait()
    task.cancel()
    await aclient.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_may_be_closed_between_two_events(aclient: AsyncClient, id: str) -> None:
    await aclient.create(id=id)
    events = aclient.watch(id)
    assert isinstance(await anext(events), Snapshot)
    await aclient.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        await anext(events)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the first loop takes open sockets along
def test_it_belongs_to_one_loop_at_a_time(where: Settings, id: str) -> None:
    client = AsyncClient(settings=where)
    asyncio.run(client.create(id=id))
    assert asyncio.run(client.get(id)).id == id

    async def elsewhere() -> None:
        await client.get(id)
        for call in (client.get, lambda _: client.close()):
            with pytest.raises(RuntimeError, match=OTHER_LOOP):
                await asyncio.to_thread(asyncio.run, call(id))
        await client.close()

    asyncio.run(elsewhere())
    gc.collect()


@pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning")  # anyio's, if cancelled
def test_threads_that_use_it_while_it_is_closed_end(client: Client, id: str) -> None:
    client.create(id=id)

    def use(_: int) -> set[str]:
        outcomes = set()
        for _ in range(20):
            try:
                outcomes.add(client.get(id).id)
            except RuntimeError as error:
                outcomes.add(str(error))
        return outcomes

    with ThreadPoolExecutor(8) as threads:
        uses = threads.map(use, range(8))
        for _ in range(20):
            client.close()
        assert set().union(*uses) <= {id, CLOSED}


def test_an_iterator_can_not_go_on_in_a_forked_process(client: Client, id: str) -> None:
    client.create(id=id)
    events = client.watch(id)
    next(events)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            next(events)
        except RuntimeError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 4096).decode() == OTHER_PROCESS
    os.close(reading)
    os.close(writing)


AT_THE_END = """
    import atexit, sys
    import progress_client

    def read(when):
        try:
            progress_client.get("i")
        except RuntimeError as error:
            print(when, error, sep=": ", file=sys.__stdout__, flush=True)

    class Late:
        def __del__(self):
            read("while modules are cleared")

    sys.modules["late"] = Late()
    atexit.register(read, "at exit")
"""


def test_a_call_that_comes_too_late_says_so() -> None:
    said = finished(python("redis://localhost:1", AT_THE_END))
    assert said.splitlines() == [f"at exit: {AT_EXIT}", f"while modules are cleared: {AT_EXIT}"]
