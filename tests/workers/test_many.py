"""A thousand concurrent operations in one process."""

import asyncio

from progress_workers import AsyncOperation
from tests.workers.harness import Broker, assert_whole

OPERATIONS, STEPS = 1000, 5


async def test_a_thousand_operations_in_one_loop(broker: Broker) -> None:
    at_once = most = 0
    everybody = asyncio.Event()

    async def work(number: int) -> None:
        nonlocal at_once, most
        async with AsyncOperation.start("work", id=f"op-{number}", total=STEPS, settings=broker.settings) as op:
            at_once += 1
            most = max(most, at_once)
            if most == OPERATIONS:
                everybody.set()
            await everybody.wait()
            for step in range(STEPS):
                op.log(f"step {step}")
                op.advance()
                await asyncio.sleep(0.01)
            at_once -= 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(number) for number in range(OPERATIONS)))
    assert most == OPERATIONS
    for number in range(OPERATIONS):
        events = broker.events(f"op-{number}")
        assert_whole(events)
        assert [event.data["message"] for event in events if event.type == "log"] == [f"step {i}" for i in range(STEPS)]
        assert [event.data["percent"] for event in events if event.type == "progress"][-1] == 100
        assert events[-1].data["status"] == "succeeded"
