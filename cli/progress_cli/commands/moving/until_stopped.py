"""Work that goes on until it ends, or somebody stops it."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM)


async def until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """Do the work until it ends, or Ctrl-C or SIGTERM end it. Return whether they did."""
    loop, task, stopped = asyncio.get_running_loop(), asyncio.create_task(work), asyncio.Event()

    def stop() -> None:
        stopped.set()
        task.cancel()

    for number in ENDING:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
    finally:
        for number in ENDING:
            loop.remove_signal_handler(number)
    return stopped.is_set()
