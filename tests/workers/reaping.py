"""A reaper, run as a server runs it, for tests without a server."""

import asyncio
from threading import Thread
from typing import Self

from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.settings import Settings


class Reaping:
    """Runs a reaper in a thread during its block."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        async with await Store.open(self._settings) as store, Reaper(store, grace_s=0):
            await self._stopped.wait()
