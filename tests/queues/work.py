"""The work of all queues' tasks. It does not know about queues, and reports only as any code can."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import progress_workers
from tests.workers.zoo import ZOO

PATIENCE_S = 90.0
"""How long work runs that waits to be stopped: longer than any test waits, in seconds."""


class Odd:
    """A value that JSON can't hold."""


def count(rows: int) -> dict[str, int]:
    for _ in progress_workers.track(range(rows)):
        pass
    return {"counted": rows}


def odd() -> Any:
    return Odd()


def returns(name: str) -> Any:
    """Return one of the unusual values."""
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
    """Wait in the first attempt; return at once in later ones."""
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
    """Run until it is cancelled, and check for that."""
    op = progress_workers.current()
    op.log("at work")
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        op.raise_if_cancelled()
        time.sleep(0.01)


def deaf() -> None:
    """Run without checking for a cancel."""
    progress_workers.current().log("at work")
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        time.sleep(0.01)


async def waits_async() -> None:
    progress_workers.current().log("at work")
    await asyncio.sleep(PATIENCE_S)
