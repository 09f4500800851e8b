"""The outbox: what is to be sent over one socket, held up to a bound, and sent as fast as the server takes it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from starlette.types import Message


class Closing(NamedTuple):
    """How a socket ends."""

    code: int
    reason: str


class Outbox:
    """Holds `limit` bytes, and at most what one who writes adds before it looks whether it is full."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._texts: list[str] = []
        self._size = 0
        self._closing: Closing | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.full_since: float | None = None

    @property
    def full(self) -> bool:
        """Whether nobody should write."""
        return self._size >= self._limit

    def put(self, texts: Sequence[str], size: int) -> None:
        """Take what is to be sent, unless it ends."""
        if texts and self._closing is None:
            self._texts += texts
            self._size += size
            self._news.set()
            if self.full and self.full_since is None:
                self.full_since = self._clock()
                self._room.clear()

    def close(self, closing: Closing) -> None:
        """End the socket after what is held."""
        self._closing = self._closing or closing
        self._news.set()
        self._room.set()

    async def room(self) -> None:
        """Wait until it is not full."""
        await self._room.wait()

    async def deliver(self, send: Callable[[Message], Awaitable[None]], on_room: Callable[[], None]) -> None:
        """Send what comes, to the end; call `on_room` when there is room again. `send` waits for the client."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._texts:
                texts, size = self._texts, self._size
                self._texts = []
                for text in texts:
                    await send({"type": "websocket.send", "text": text})
                self._size -= size  # only now, or twice as much would be held
                if self.full_since is not None:
                    self.full_since = self._clock() if self.full else None
                    if not self.full:
                        self._room.set()
                        on_room()
            if self._closing is not None:
                await send({"type": "websocket.close", **self._closing._asdict()})
                return
