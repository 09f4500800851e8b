"""Notices to the back end of each connection that has ended: sent soon, but best effort."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from progress_broker.runtime.tally import Tally
from progress_broker.runtime.tasks import Tasks
from progress_server.callback.client import SENDERS, AuthorizerError
from progress_server.callback.signature import new_message_id

log = logging.getLogger(__name__)

TRIES = 3
PAUSE_S = 1.0
"""Pause before the second attempt, about; twice as long before the third."""
AGAIN = (408, 429)
MAX_QUEUED = 20_000
FLUSH_S = 1.5
"""How long a process that stops still sends notices: less than the time after which a supervisor kills it."""

ACTION = "disconnect"


class DisconnectEvents:
    """A queue of notices to send. Use it as an async context manager: on exit it sends what it can."""

    def __init__(self, notify: Callable[[str, bytes], Awaitable[int]], tally: Tally, pause_s: float = PAUSE_S) -> None:
        self._notify = notify
        self._tally = tally
        self._pause_s = pause_s
        self._waiting: deque[bytes] = deque()
        self._sending = 0
        self._queued = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        for _ in range(SENDERS):
            self._tasks.keep_running(self._send)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.wait_for(self._idle.wait(), FLUSH_S)
        except TimeoutError:
            unsent = len(self._waiting) + self._sending
            self._tally.callbacks[ACTION, "dropped"] += unsent
            log.warning("this server stopped before it had notified the back end of %d ended connections", unsent)
        await self._tasks.close()

    def enqueue(self, body: bytes) -> None:
        """Queue a notice. If the queue is full, the notice is dropped and counted."""
        if len(self._waiting) >= MAX_QUEUED:
            self._tally.callbacks[ACTION, "dropped"] += 1
            return
        self._waiting.append(body)
        self._idle.clear()
        self._queued.set()

    async def _send(self) -> None:
        while True:
            while not self._waiting:
                self._queued.clear()
                await self._queued.wait()
            body = self._waiting.popleft()
            self._sending += 1
            try:
                sent = await self._deliver(body)
            finally:
                self._sending -= 1
            self._tally.callbacks[ACTION, "sent" if sent else "failed"] += 1
            if not self._sending and not self._waiting:
                self._idle.set()

    async def _deliver(self, body: bytes) -> bool:
        """Return whether the back end accepted a notice. If it can't be delivered, it is sent again with the same
        id."""
        message_id = new_message_id()
        pause_s = self._pause_s
        for left in reversed(range(TRIES)):
            try:
                status = await self._notify(message_id, body)
            except AuthorizerError:
                status = 0
            if 200 <= status < 300:
                return True
            if not left or (300 <= status < 500 and status not in AGAIN):
                break
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s *= 2
        return False
