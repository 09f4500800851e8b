"""The send queue of one WebSocket: bounded, and sent as fast as the server accepts messages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from starlette.types import Message


class Closing(NamedTuple):
    """The close code and the reason of a WebSocket."""

    code: int
    reason: str


class SendQueue:
    """Holds up to `limit` bytes. A writer can exceed that by one write, because it checks `full` afterwards."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._texts: list[str] = []
        self._size = 0
        self._closing: Closing | None = None
        self._queued = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.full_since: float | None = None

    @property
    def full(self) -> bool:
        """Whether the limit is reached and writers should pause."""
        return self._size >= self._limit

    def put(self, texts: Sequence[str], size: int) -> None:
        """Add messages to send. After `close` they are dropped."""
        if texts and self._closing is None:
            self._texts += texts
            self._size += size
            self._queued.set()
            if self.full and self.full_since is None:
                self.full_since = self._clock()
                self._has_room.clear()

    def close(self, closing: Closing) -> None:
        """Close the WebSocket after the queued messages have been sent."""
        self._closing = self._closing or closing
        self._queued.set()
        self._has_room.set()

    async def room(self) -> None:
        """Wait until the queue is not full."""
        await self._has_room.wait()

    async def deliver(self, send: Callable[[Message], Awaitable[None]], on_room: Callable[[], None]) -> None:
        """Send queued messages until the queue is closed.

        `send` waits for the client. `on_room` is called when a full queue has room again.
        """
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._texts:
                texts, size = self._texts, self._size
                self._texts = []
                for text in texts:
                    await send({"type": "websocket.send", "text": text})
                self._size -= size  # only now: if it counted as free earlier, twice the limit could be held
                if self.full_since is not None:
                    self.full_since = self._clock() if self.full else None
                    if not self.full:
                        self._has_room.set()
                        on_room()
            if self._closing is not None:
                await send({"type": "websocket.close", **self._closing._asdict()})
                return
