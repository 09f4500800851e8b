"""arq: a job that times out has failed, at any point, and was not aborted. Run as arq's worker runs a job."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from progress_broker.model.operation import Status
from progress_workers.queues._runs import begin, create_for_task
from tests.workers.harness import Broker

TIMEOUT_S = 0.2
Context = dict[Any, Any]


async def job(broker: Broker, before: Any = None) -> None:
    from arq.worker import func

    from progress_workers.queues.arq import reported

    async def work(ctx: Context) -> None:
        await asyncio.sleep(30)

    @reported
    class Settings:
        functions = (func(work, name="work", timeout=TIMEOUT_S),)

        @staticmethod
        async def on_job_start(ctx: Context) -> None:
            await asyncio.sleep(TIMEOUT_S / 4)  # the timeout does not include this

    settings: Any = Settings
    create_for_task("late", {"kind": "work"})
    ctx: Context = {"job_id": "late", "job_try": 1, "enqueue_time": datetime.now(UTC)}
    await settings.on_job_start(ctx)
    if before is not None:
        asyncio.get_running_loop().call_soon(before)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(settings.functions[0].coroutine(ctx), TIMEOUT_S)
    shown = broker.show("late")
    assert (shown.status, shown.error) == (
        Status.FAILED,
        {"type": "TimeoutError", "message": "the job took longer than 0.2 s"},
    )


async def test_though_its_operation_could_not_be_begun_in_that_time(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*args: Any) -> Any:
        time.sleep(2 * TIMEOUT_S)
        return begin(*args)

    monkeypatch.setattr("progress_workers.queues.arq.begin", late)
    await job(broker)


async def test_though_the_loop_was_too_busy_to_begin_it_at_once(broker: Broker) -> None:
    await job(broker, lambda: time.sleep(TIMEOUT_S / 2))
