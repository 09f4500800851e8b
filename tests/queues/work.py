"""What the tasks of every queue do: they know nothing of queues, and of reporting only what any code may."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import progress_workers
from tests.workers.zoo import ZOO

PATIENCE_S = 90.0
"""How long work goes on that waits to be stopped: longer than a test waits for that."""


class Odd:
    """What JSON can't hold."""


def count(rows: int) -> dict[str, int]:
    for _ in progress_workers.track(range(rows)):
        pass
    return {"counted": rows}


def odd() -> Any:
    return Odd()


def returns(name: str) -> Any:
    """Return one of the odd values."""
    return ZOO[name]()


def breaks() -> None:
    raise ValueError("bad row 7")


def flaky() -> int:
    op = progress_workers.current()
    op.advance()
    if op.attempt == 1:
        raise ValueError("not yet")
    return op.attempt


async def resumes() -> int:
    """Waits at first, and then has nothing left to do."""
    if progress_workers.current().attempt == 1:
        await waits_async()
    return progress_workers.current().attempt


def dies() -> int:
    op = progress_workers.current()
    if op.attempt == 1:
        op.log(str(os.getpid()))
        progress_workers.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return op.attempt


def touch(path: str) -> None:
    Path(path).touch()


def waits() -> None:
    """Goes on until it is told to stop, and looks whether it is."""
    op = progress_workers.current()
    op.log("at work")
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        op.raise_if_cancelled()
        time.sleep(0.01)


def deaf() -> None:
    """Goes on, and never looks."""
    progress_workers.current().log("at work")
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        time.sleep(0.01)


async def waits_async() -> None:
    progress_workers.current().log("at work")
    await asyncio.sleep(PATIENCE_S)
