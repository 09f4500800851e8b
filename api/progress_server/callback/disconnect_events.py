"""Farewells: the back end is told of each connection that has ended, soon, and not at any price."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from progress_broker.runtime.tally import Tally
from progress_broker.runtime.tasks import Tasks
from progress_server.callback.client import SENDERS, Trouble

log = logging.getLogger(__name__)

TRIES = 3
PAUSE_S = 1.0
"""How long, about, until the next try; then twice as long."""
AGAIN = (408, 429)
MOST_WAITING = 20_000
FLUSH_S = 1.5
"""How long a process that stops goes on telling: less than a supervisor waits for it."""

ACTION = "disconnect"


class Farewells:
    """What is yet to be told. Use it as an async context manager: leaving it tells what it can."""

    def __init__(self, tell: Callable[[bytes], Awaitable[int]], tally: Tally, pause_s: float = PAUSE_S) -> None:
        self._tell = tell
        self._tally = tally
        self._pause_s = pause_s
        self._waiting: deque[bytes] = deque()
        self._busy = 0
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        for _ in range(SENDERS):
            self._tasks.keep_up(self._send)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.wait_for(self._idle.wait(), FLUSH_S)
        except TimeoutError:
            untold = len(self._waiting) + self._busy
            self._tally.callbacks[ACTION, "dropped"] += untold
            log.warning("the back end was not told of %d connections that have ended", untold)
        await self._tasks.close()

    def say(self, body: bytes) -> None:
        """Tell this, when its turn comes. When too much waits, it is dropped and counted."""
        if len(self._waiting) >= MOST_WAITING:
            self._tally.callbacks[ACTION, "dropped"] += 1
            return
        self._waiting.append(body)
        self._idle.clear()
        self._news.set()

    async def _send(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            body = self._waiting.popleft()
            self._busy += 1
            try:
                told = await self._tried(body)
            finally:
                self._busy -= 1
            self._tally.callbacks[ACTION, "told" if told else "failed"] += 1
            if not self._busy and not self._waiting:
                self._idle.set()

    async def _tried(self, body: bytes) -> bool:
        """Return whether it was told; a back end that is away or in trouble is tried again."""
        pause_s = self._pause_s
        for left in reversed(range(TRIES)):
            try:
                status = await self._tell(body)
            except Trouble:
                status = 0
            if 200 <= status < 300:
                return True
            if not left or (300 <= status < 500 and status not in AGAIN):
                break
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s *= 2
        return False
